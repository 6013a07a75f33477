"""Steps compiled for TPUs on this machine. Oracle: arithmetic; the compiler's own words. Run by `.ci/accelerators`."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import conversion
from tests.vit_jax.training.ahead.small_programs import DIGITS
from vit_jax.training.ahead.compile import TooLargeError, compile_ahead
from vit_jax.training.ahead.exchange import exchanges
from vit_jax.training.ahead.topology import describe, prepare_environment
from vit_jax.training.recipe.config import ModelOptions, TrainConfig
from vit_jax.training.recipe.execution import MeshShape
from vit_spec import forward_flops

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="needs libtpu: pip install 'vitport[aot-tpu]'",
    ),
]
SMALL = (
    "--model", "vit_tiny_patch16_224", "--model.embed-dim", "128", "--model.depth", "2", "--model.num-heads", "4",
    "--steps", "10", "--precision", "bfloat16", "--dry-run", "--classes", "10",
)  # fmt: skip
TOKENS, D, M, DEPTH = 197, 128, 512, 2
KERNELS = DEPTH * (4 * D * D + 2 * D * M)


def vitport(tmp_path: Path, *options: str, status: int = 0) -> str:
    """What the command prints: to stdout, or to stderr where it fails."""
    command = [sys.executable, "-m", "vit_cli", "train", "--workdir", str(tmp_path / "run"), *SMALL, *options]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert not (tmp_path / "run").exists()
    return done.stdout if status == 0 else done.stderr


def test_a_step_over_data_and_fsdp(tmp_path) -> None:
    """Four chips, 16 images on each."""
    options = ("--batch", "64", "--mesh", "data=2,fsdp=2", "--on", "v5e:2x2", "--json", "--attention", "fused")
    found = json.loads(vitport(tmp_path, *options))
    assert (found["chips"], found["mesh"]) == (4, {"data": 2, "fsdp": 2, "tensor": 1})
    others = 2 * 16 * 16 * 3 * D + TOKENS * D  # patches and positions; with biases, norms and tokens less than as much
    held = 3 * 4 * KERNELS / 2
    images = 16 * 3 * 224 * 224
    assert held + images < found["memory"]["state"] < held + images + 3 * 4 * others
    # Three forward passes, but no gradient of the images.
    block = TOKENS * (4 * D * D + 2 * D * M) + 2 * TOKENS * TOKENS * D
    products = 2 * 16 * (3 * DEPTH * block + 2 * 196 * 16 * 16 * 3 * D + 3 * D * 10)
    assert found["flops"] == products
    moved = {(one["kind"], tuple(one["axes"])): 0.0 for one in found["collectives"]}
    for one in found["collectives"]:
        moved[one["kind"], tuple(one["axes"])] += one["bytes"]
    # Weights are gathered for each pass, in bfloat16; gradients of all of them are scattered along fsdp, their shards
    # summed along data; those of biases and norms are summed whole.
    outside = 2 * (16 * 16 * 3 * D + 10 * D) + 4 * TOKENS * D  # patches, head; positions in float32
    gathered = outside - 2 * TOKENS * D  # positions are cast before
    assert moved["all-gather", ("fsdp",)] == 2 * 2 * KERNELS + gathered
    assert moved["reduce-scatter", ("fsdp",)] == 2 * KERNELS + outside
    assert moved["all-reduce", ("data",)] == (2 * KERNELS + outside) / 2
    assert moved["all-reduce", ("data", "fsdp")] < 0.1 * KERNELS
    norms = 4 * 2 * (4 + 3)  # for the log: at most two numbers for each sharded array, of blocks (stacked) and outside
    assert moved["all-reduce", ("fsdp",)] <= norms
    beside = sum(one["bytes"] for one in found["collectives"] if one["asynchronous"])
    assert beside > 0.5 * moved["all-gather", ("fsdp",)]
    assert 0 < found["roofline"]["mfu"] < 1


def test_a_scan_under_fsdp_holds_the_weights_of_one_or_two_blocks() -> None:
    """Every all-gather within a loop is of one block's kernel, forward and backward; six blocks more hold what they
    keep for the backward pass, and no weights."""
    prepare_environment()
    found = {}
    for depth in (2, 8):
        model = ModelOptions("vit_tiny_patch16_224", embed_dim=128, depth=depth, num_heads=4)
        options = TrainConfig(
            model, batch=8, steps=10, precision="bfloat16", scan=True, mesh=MeshShape(1, 4, 1), attention="fused"
        )
        found[depth] = compile_ahead(options, describe("v5e:2x2"), 10)
        gathers = [one for one in exchanges(found[depth].program, 4) if one.kind == "all-gather" and one.times == depth]
        assert sum(one.bytes for one in gathers) == 2 * 2 * (KERNELS / DEPTH)
        assert max(one.bytes for one in gathers) == 2 * D * M
    # Two images a chip, in bfloat16 and tiles: results of matrix products and attention weights.
    kept = 2 * 2 * (200 * (2 * D + 3 * D + M) + 4 * 200 * 256)
    held = 2 * KERNELS / DEPTH
    more = found[8].memory.temporaries - found[2].memory.temporaries
    assert more < 6 * (kept + held / 2)


def test_pmap_sums_all_gradients_in_float32(tmp_path) -> None:
    found = json.loads(vitport(tmp_path, "--batch", "64", "--parallel", "pmap", "--on", "v5e:2x2", "--json"))
    summed = sum(one["bytes"] for one in found["collectives"])
    assert {(one["kind"], *one["axes"]) for one in found["collectives"]} == {("all-reduce", "data")}
    assert summed == 4 * found["parameters"] + 8  # two numbers for the log
    assert "runs on one host" in vitport(tmp_path, "--batch", "64", "--parallel", "pmap", "--on", "v5e:4x4", status=2)


def test_flash_attention_holds_no_attention_weights(tmp_path) -> None:
    """At 1,025 tokens, where ``auto`` takes it; the fused one holds weights in tiles, in float32 and bfloat16.
    Measured: 2.74 and 1.13 GB, 0.91 GB of them weights."""
    options = ("--batch", "64", "--model.image-size", "512", "--on", "v6e:2x2", "--json", "--remat", "none")
    fused, flash = (
        json.loads(vitport(tmp_path, *options, "--attention", kind))["memory"]["temporaries"]
        for kind in ("fused", "flash")
    )
    weights = 16 * DEPTH * 4 * 1032 * 1152 * (4 + 2)
    assert fused - flash > 0.8 * weights


def test_flash_attention_to_short_sequences_along_a_tensor_axis(tmp_path) -> None:
    """Each chip runs the kernel on its own two heads, and no chip exchanges more than with the fused attention, but for
    a few numbers of the log. ``auto`` takes it."""
    options = ("--batch", "64", "--mesh", "data=2,tensor=2", "--on", "v5e:2x2", "--json")
    fused, flash = (json.loads(vitport(tmp_path, *options, "--attention", kind)) for kind in ("fused", "auto"))
    assert flash["attention"] == "flash"
    exchanged = [sum(one["bytes"] for one in found["collectives"]) for found in (fused, flash)]
    assert abs(exchanged[1] - exchanged[0]) < 1024
    assert flash["memory"]["temporaries"] < fused["memory"]["temporaries"]


def test_what_does_not_fit_is_refused_by_the_compiler() -> None:
    """16,384 images a chip, of which a block keeps some 20 kB for each token. What is tried then: test_fitting."""
    prepare_environment()
    model = ModelOptions("vit_tiny_patch16_224", embed_dim=128, depth=2, num_heads=4)
    options = TrainConfig(model, batch=65536, steps=10, precision="bfloat16", scan=True, remat="none")
    with pytest.raises(
        TooLargeError, match=r"does not fit TPU v5e: the compiler needs [\d.]+ GB .* 16\.9 GB are there"
    ):
        compile_ahead(options, describe("v5e:2x2"), 10)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_compiler_at_once(number, status, tmp_path) -> None:
    """It comes within the compiler, which hears no signals; a dry run has nothing to resume."""
    command = [sys.executable, "-m", "vit_cli", "train", "--workdir", str(tmp_path / "run"), *SMALL, "--on", "v5e:2x2"]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = process.stderr.readline()
    assert told.startswith("vitport: compiling a training step for 4 x TPU v5e: about 1 min")
    time.sleep(4)
    process.send_signal(number)
    begin = time.monotonic()
    out, told = process.communicate(timeout=60)
    assert time.monotonic() - begin < 3
    assert (process.returncode, out, told) == (status, "", f"vitport: stopped by {number.name}.\n")


def test_a_slice_that_does_not_exist_is_one_sentence(tmp_path) -> None:
    assert "is not an arrangement that the compiler knows" in vitport(tmp_path, "--on", "v5e:3x3", status=2)


def test_inference_for_evaluation() -> None:
    """Chips share the images, each has all weights, and none exchanges anything."""
    command = [sys.executable, "-m", "vit_cli", "evaluate", str(DIGITS), "--on", "v5e:2x2", "--batch", "64", "--json"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["collectives"] == []
    assert found["batch"] == 64
    config = conversion.load(DIGITS).config
    assert found["flops"] == 16 * forward_flops(config)


def test_a_search_ends_with_a_way_that_fits(tmp_path) -> None:
    found = json.loads(vitport(tmp_path, "--batch", "64", "--on", "v5e:2x2", "--search", "--json"))
    assert found["use"] == found["ways"][0]["options"]
    fitting = [way for way in found["ways"] if "roofline" in way]
    assert [way["scan"] for way in fitting].count(True) == 3
    assert any(not way["scan"] and "--no-scan" in way["options"] for way in fitting)  # of two blocks it is tried too
    times = [way["roofline"]["step_seconds"] for way in fitting]
    assert times == sorted(times)
