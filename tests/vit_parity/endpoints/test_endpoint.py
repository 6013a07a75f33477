"""What can be compared is told apart, and transformers' own models are observed under our names."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import conversion
import vit_torch
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.small_configs import BASE
from tests.vit_parity.runs import random_batch
from vit_parity import compare_captures
from vit_parity.capture_file import save_capture
from vit_parity.endpoints import Endpoint, parse_endpoint, run_endpoint
from vit_parity.explain import explain
from vit_parity.replay import ReplayedModel, float64_params
from vit_spec import VitportError

SQUARE = BASE.replace(image_size=12)
DINO = SQUARE.replace(layer_scale=1.0, mlp_hidden_dim=48, num_classes=0)
FAMILIES = {
    "huggingface-vit": (SQUARE, 32),
    "huggingface-deit": (SQUARE.replace(distilled=True), 32),
    "huggingface-dinov2": (DINO, 35),
    "huggingface-clip": (SQUARE.replace(num_classes=0, pre_norm=True, activation="quick_gelu", patch_bias=False), 30),
    "huggingface-siglip": (SQUARE.replace(class_token=False, pool="map", activation="gelu_tanh", num_classes=0), 31),
}
"""Family → model, and how many activations transformers shows of it."""


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_runs_every_family_and_agrees_layer_by_layer(tmp_path, family):
    """Oracle: transformers itself, reading the folder that we wrote; nothing diverges and nobody is accused."""
    config, count = FAMILIES[family]
    written = Checkpoint.of(config, random_params(config, 1, np.float32))
    conversion.save(written, tmp_path / "model", format=family)
    checkpoint, images = conversion.load(tmp_path / "model"), random_batch(config)
    sides = [parse_endpoint(f"{kind}:{tmp_path / 'model'}") for kind in ("torch", "transformers")]
    ours, theirs = (run_endpoint(side, checkpoint, images, "float32") for side in sides)
    found = compare_captures(ours, theirs)
    assert found.first_divergence is None
    assert found.only_b == ()
    assert len(found.rows) == count
    model = ReplayedModel(checkpoint.config, float64_params(checkpoint.params), images)
    assert explain(theirs, model) == ()


def test_endpoints_are_told_apart_by_what_stands_before_the_colon(tmp_path):
    """A path alone is the default kind, or a capture where its content says so; other colons belong to the path."""
    assert parse_endpoint("jax:weights") == Endpoint("jax", "weights")
    assert parse_endpoint("weights", "jax") == Endpoint("jax", "weights")
    assert parse_endpoint("C:/weights") == Endpoint("torch", "C:/weights")
    config = SQUARE.replace(depth=1)
    run = run_endpoint(
        Endpoint("torch", "x"),
        Checkpoint.of(config, random_params(config, 1, np.float32)),
        random_batch(config),
        "float32",
    )
    save_capture(run, tmp_path / "run.npz")
    assert parse_endpoint(str(tmp_path / "run.npz")).kind == "capture"


def test_a_name_of_timm_s_is_told_from_its_files(tmp_path, monkeypatch):
    """A name has no folder and no ending of a file, and nothing lies there; it is run with the other side's weights."""
    monkeypatch.chdir(tmp_path)
    assert parse_endpoint("timm:vit_tiny_patch16_224.augreg_in21k").borrows
    (tmp_path / "here").mkdir()
    for path in ("here", "weights.safetensors", "weights.npz", "folder/vit_tiny_patch16_224", "hf://timm/vit_tiny"):
        assert not parse_endpoint(f"timm:{path}").borrows
    assert not parse_endpoint("torch:vit_tiny_patch16_224").borrows


@pytest.mark.parametrize("fault", [ImportError("no torchvision"), RuntimeError("operator torchvision::nms\ndoes not")])
def test_without_timm_the_way_to_it_is_told_in_one_sentence(monkeypatch, fault):
    """torchvision beside another torch fails while it is imported, and not by an ImportError alone."""

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "timm":
                raise fault

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    weights = Checkpoint.of(SQUARE, random_params(SQUARE, 1, np.float32))
    with pytest.raises(VitportError, match="needs timm, which cannot be imported here") as told:
        run_endpoint(parse_endpoint("timm:vit_tiny_patch16_224"), weights, random_batch(SQUARE), "float32")
    assert "\n" not in str(told.value)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, Path]:
    """The model of :data:`SQUARE`, and the same with tanh GELU, as torch.onnx writes them."""
    params = random_params(SQUARE, 1, np.float32)
    paths = {}
    for activation in ("gelu", "gelu_tanh"):
        model = vit_torch.create_model(weights=Checkpoint.of(SQUARE.replace(activation=activation), params)).eval()
        paths[activation] = tmp_path_factory.mktemp("onnx") / f"{activation}.onnx"
        with warnings.catch_warnings():  # the exporter that needs no package of its own is the older one
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (torch.zeros(1, 3, 12, 12),), str(paths[activation]), dynamo=False, do_constant_folding=False,
                opset_version=17, input_names=["image"], dynamic_axes={"image": {0: "batch"}},
            )  # fmt: skip
    return paths


def test_onnxruntime_runs_a_graph_and_agrees_between_the_blocks(exported):
    """Oracle: onnxruntime, on the graph; the weights are read from it too. Measured 2.3e-7 at most."""
    side = parse_endpoint(f"onnx:{exported['gelu']}")
    checkpoint, images = conversion.load(side.path), random_batch(SQUARE)
    theirs = run_endpoint(side, checkpoint, images, "float32")
    assert theirs.facts["framework"].startswith("onnxruntime ")
    found = compare_captures(run_endpoint(Endpoint("torch", "x"), checkpoint, images, "float32"), theirs)
    assert [row.name for row in found.rows] == ["embed", "blocks.0", "blocks.1", "norm", "logits"]
    assert found.first_divergence is None
    assert 0 < max(row.difference.relative for row in found.rows) < 1e-6
    assert explain(theirs, ReplayedModel(SQUARE, float64_params(checkpoint.params), images)) == ()


def test_the_other_gelu_in_a_graph_is_named(exported):
    """The graph computes the tanh form on weights of the erf form."""
    side = parse_endpoint(f"onnx:{exported['gelu_tanh']}")
    checkpoint, images = conversion.load(side.path), random_batch(SQUARE)
    theirs = run_endpoint(side, checkpoint, images, "float32")
    (found,) = explain(theirs, ReplayedModel(SQUARE, float64_params(checkpoint.params), images))
    assert (found.layer, found.cause, found.stages) == ("blocks.0", "uses tanh GELU", ("blocks.0", "blocks.1"))


def test_an_onnx_file_that_is_not_there_is_told(exported):
    checkpoint = conversion.load(exported["gelu"])
    with pytest.raises(VitportError, match="give the path of an ONNX file"):
        run_endpoint(Endpoint("onnx", "nowhere.onnx"), checkpoint, random_batch(SQUARE), "float32")
