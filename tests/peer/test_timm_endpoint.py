"""timm's own models as one side of a comparison. Oracle: timm, run by its own code and from its own files."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("timm", reason="the peer suite needs timm and torchvision: docs/testing.md")

import safetensors.torch
import timm

import conversion
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.vit_parity.runs import random_batch, replayed_model, run_torch
from vit_parity import activation_names, compare_captures
from vit_parity.endpoints import Endpoint, parse_endpoint, run_endpoint
from vit_parity.explain import explain
from vit_spec import VitportError, get_model

pytestmark = pytest.mark.peer
TINY = "vit_tiny_patch16_224"


def ours(name: str) -> Checkpoint:
    """Random weights for a registered model, nothing near its neutral value."""
    config = get_model(name).config
    return Checkpoint.of(config, random_params(config, 1, np.float32))


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_vit2",  # mean, registers with positions, norm after it
        "test_vit3",  # attention pooling over all tokens
        "test_vit4",  # RMSNorm
        "deit_tiny_distilled_patch16_224",
        "vit_xsmall_patch16_clip_224",  # pre-norm
    ],
)
def test_timm_s_model_agrees_in_every_activation_under_its_name(name):
    """Our weights run by timm's code: every activation that we name is seen, none diverges, nobody is accused."""
    weights = ours(name)
    images = random_batch(weights.config, batch=1)
    theirs = run_endpoint(parse_endpoint(f"timm:{name}"), weights, images, "float32")
    assert set(theirs.activations) >= set(activation_names(weights.config)) - {"pooled"}  # DeiT's has no such module
    found = compare_captures(run_torch(weights, images), theirs)
    assert found.first_divergence is None
    assert explain(theirs, replayed_model(weights, images)) == ()


def test_another_model_of_timm_s_is_seen_and_explained():
    """timm's Quick GELU variant on weights that were said to be of the erf form."""
    weights = ours("vit_base_patch32_clip_224")
    images = random_batch(weights.config, batch=1)
    theirs = run_endpoint(parse_endpoint("timm:vit_base_patch32_clip_quickgelu_224"), weights, images, "float32")
    causes = [entry.cause for entry in explain(theirs, replayed_model(weights, images))]
    assert causes == ["uses Quick GELU"]


def test_timm_reads_its_own_names_from_a_file_by_itself(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model(TINY).state_dict(), path)
    checkpoint = conversion.load(path, model=TINY)
    images = random_batch(checkpoint.config, batch=1)
    theirs = run_endpoint(Endpoint("timm", str(path)), checkpoint, images, "float32", TINY)
    assert compare_captures(run_torch(checkpoint, images), theirs).first_divergence is None


def test_timm_runs_google_s_file_with_the_other_gelu(tmp_path):
    """timm reads Google's .npz in code of its own, and runs it with erf where Google's is tanh: that alone."""
    path = tmp_path / "weights.npz"
    conversion.save(ours(TINY), path, format="google", activation="tanh")
    checkpoint = conversion.load(path)
    images = random_batch(checkpoint.config, batch=1)
    theirs = run_endpoint(Endpoint("timm", str(path)), checkpoint, images, "float32", TINY)
    causes = [entry.cause for entry in explain(theirs, replayed_model(checkpoint, images))]
    assert causes == ["uses erf GELU"]


def test_the_command_runs_a_name_with_the_other_side_s_weights(tmp_path):
    """From the command line: timm on either side, a cause where there is one, and files it cannot be given."""
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model("test_vit").state_dict(), path)

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vit_cli.main", "compare", *map(str, args), "--model", "test_vit"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for sides in ((path, "timm:test_vit"), ("timm:test_vit", path), (path, f"timm:{path}")):
        done = run(*sides, "--explain", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["first_divergence"] is None
        assert told["explanations"] == []
    done = run("timm:test_vit", "timm:test_vit2")
    assert done.returncode == 2
    assert "name without weights" in done.stderr
    done = run(path, "timm:test_vit3")
    assert done.returncode == 2
    assert done.stderr.startswith("vitport: timm cannot load test_vit3 (")
    assert done.stderr.count("\n") == 1


def test_a_pickle_is_not_given_to_timm(tmp_path):
    with pytest.raises(VitportError, match="might unpickle"):
        run_endpoint(Endpoint("timm", str(tmp_path / "a.pth")), ours("test_vit"), np.zeros((1, 2, 2, 3)), "float32")
