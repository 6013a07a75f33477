"""Graphs of blocks that normalise the sums after their layers (Vaswani et al. 2017), from the tracing exporter."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import conversion
import vit_torch
from conversion import Checkpoint
from tests.conversion.test_torchvision import CONFIG, Encoder
from tests.random_weights import random_params
from tests.small_configs import BASE
from vit_parity import torch_activations
from vit_parity.endpoints.onnx_graph import OnnxGraph
from vit_spec import VitportError

OURS = BASE.replace(block="original", depth=2)
VARIANTS = {
    "tokens": {"final_norm": "tokens"},
    "none": {"final_norm": "none"},
    "average": {"final_norm": "pooled", "pool": "avg"},
    "map": {"pool": "map", "final_norm": "none"},
    "pre-norm": {"pre_norm": True, "layer_scale": 0.1, "final_norm": "none", "pool": "token_avg"},
}


def export(model: nn.Module, images: np.ndarray, path: Path) -> Path:
    """Traced in evaluation mode on images (B, C, H, W)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (torch.tensor(images),), str(path), dynamo=False, input_names=["image"])
    return path


@pytest.mark.parametrize("name", VARIANTS)
def test_our_own_models_come_back(name: str, tmp_path: Path) -> None:
    """Oracle: onnxruntime on the graph, every stage that it has; float32, measured 1.5e-6 of the largest value."""
    config = OURS.replace(**VARIANTS[name])
    model = vit_torch.create_model(weights=Checkpoint.of(config, random_params(config, seed=2, dtype=np.float32)))
    images = np.random.default_rng(3).standard_normal((2, 3, *config.image_size)).astype(np.float32)
    path = export(model, images, tmp_path / "a.onnx")
    checkpoint = conversion.load(path)
    assert checkpoint.config.block == "original"
    assert checkpoint.config.depth == config.depth
    assert checkpoint.config.final_norm == config.final_norm
    found = torch_activations(vit_torch.create_model(weights=checkpoint).eval(), images.transpose(0, 2, 3, 1))
    stages = OnnxGraph(path).activations(images.transpose(0, 2, 3, 1))
    assert {"embed", "blocks.0", "blocks.1", "head"} <= set(stages)
    for stage, array in stages.items():
        np.testing.assert_allclose(found[stage], array, rtol=0, atol=3e-6 * np.abs(array).max(), err_msg=stage)


@pytest.mark.parametrize(("order", "final"), [("original", True), ("original", False), ("sequential", True)])
def test_a_transformer_encoder_comes_back(order: str, final: bool, tmp_path: Path) -> None:
    """Oracle: ``torch.nn.TransformerEncoder`` on two images, which its attention lays out behind the tokens.

    float32, eleven layers; measured 3e-7 of the largest value.
    """
    config = CONFIG.replace(representation_size=None, image_size=(12, 20))
    torch.manual_seed(4)
    theirs = Encoder(config, norm_first=order == "sequential")
    if not final:
        theirs.encoder.norm = None
    for parameter in theirs.parameters():
        parameter.data = torch.randn_like(parameter) * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5)
    images = np.random.default_rng(5).standard_normal((2, 3, *config.image_size)).astype(np.float32)
    checkpoint = conversion.load(export(theirs, images, tmp_path / "a.onnx"))
    assert checkpoint.config.block == order
    assert checkpoint.config.activation == "relu"
    answers = theirs(torch.tensor(images)).detach().numpy()
    found = vit_torch.create_model(weights=checkpoint).eval()(torch.tensor(images)).detach().numpy()
    np.testing.assert_allclose(found, answers, rtol=0, atol=1e-6 * np.abs(answers).max())


def test_a_block_that_norms_one_of_its_sums_alone_is_refused(tmp_path: Path) -> None:
    model = vit_torch.create_model(weights=Checkpoint.of(OURS, random_params(OURS, seed=2, dtype=np.float32)))
    model.blocks[0].norm1 = nn.Identity()
    path = export(model, np.zeros((1, 3, *OURS.image_size), np.float32), tmp_path / "a.onnx")
    onnx.checker.check_model(str(path))
    with pytest.raises(VitportError, match="adds a layer with no norm before it, after it, or after the sum"):
        conversion.load(path)


def test_blocks_of_two_orders_are_refused(tmp_path: Path) -> None:
    model = vit_torch.create_model(weights=Checkpoint.of(OURS, random_params(OURS, seed=2, dtype=np.float32)))
    other = OURS.replace(block="sequential")
    model.blocks[0] = vit_torch.create_model(other).blocks[0]
    path = export(model, np.zeros((1, 3, *OURS.image_size), np.float32), tmp_path / "a.onnx")
    with pytest.raises(VitportError, match="has its norms in other places than the first block"):
        conversion.load(path)
