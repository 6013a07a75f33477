"""Graphs of models with biases by relative position, from the tracing exporter. Oracle: onnxruntime on the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import conversion
import vit_torch
from conversion import Checkpoint
from tests.conversion.onnx.test_original_order import export
from tests.cross.transformers_folders import randomize
from tests.random_weights import random_params
from tests.small_configs import BASE
from vit_parity.endpoints.onnx_graph import OnnxGraph
from vit_spec import VitportError

BARE: dict[str, Any] = {"pos_embed": "none", "depth": 2}
MODELS: dict[str, dict[str, Any]] = {
    "BEiT": BARE | {"relative_bias": True, "qkv_bias": False, "qv_bias": True, "layer_scale": 0.1, "pool": "avg"},
    "a table of positions too": {"relative_bias": True, "qk_scale": 0.6},
    "no class token": BARE | {"relative_bias": True, "class_token": False, "pool": "avg"},
    "a network": BARE | {"relative_hidden_dim": 9, "qkv_bias": False},
    "a network, norms after": BARE
    | {"relative_hidden_dim": 9, "class_token": False, "pool": "avg", "block": "post_norm"},
}


@pytest.mark.parametrize("name", MODELS)
def test_our_own_models_come_back(name: str, tmp_path: Path) -> None:
    """Biases of queries and values alone come back as biases of all three, a network as the table that it computes."""
    config = BASE.replace(**MODELS[name])
    model = vit_torch.create_model(weights=Checkpoint.of(config, random_params(config, seed=2, dtype=np.float32)))
    images = np.random.default_rng(3).standard_normal((2, 3, *config.image_size)).astype(np.float32)
    path = export(model, images, tmp_path / "a.onnx")
    checkpoint = conversion.load(path)
    assert checkpoint.config.relative_bias
    assert (checkpoint.config.class_token, checkpoint.config.block) == (config.class_token, config.block)
    assert checkpoint.config.image_size == config.image_size
    found = vit_torch.create_model(weights=checkpoint).eval()(torch.tensor(images)).detach().numpy()
    expected = OnnxGraph(path).activations(images.transpose(0, 2, 3, 1))["head"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_transformers_beit_comes_back(tmp_path: Path) -> None:
    """transformers computes its biases from a table that it resizes in the graph, to its own size."""
    config = transformers.BeitConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, patch_size=4, intermediate_size=40, image_size=12,
        num_labels=5, use_relative_position_bias=True,
    )  # fmt: skip
    theirs = randomize(transformers.BeitForImageClassification(config))
    images = np.random.default_rng(3).standard_normal((2, 3, 12, 12)).astype(np.float32)
    checkpoint = conversion.load(export(theirs, images, tmp_path / "a.onnx"))
    assert checkpoint.config.relative_bias
    answers = theirs(torch.tensor(images)).logits.detach().numpy()
    found = vit_torch.create_model(weights=checkpoint).eval()(torch.tensor(images)).detach().numpy()
    np.testing.assert_allclose(found, answers, rtol=0, atol=3e-6 * np.abs(answers).max())


def test_other_numbers_on_the_scores_are_refused(tmp_path: Path) -> None:
    """A mask on one key."""
    config = BASE.replace(**MODELS["no class token"])
    model = vit_torch.create_model(weights=Checkpoint.of(config, random_params(config, seed=2, dtype=np.float32)))
    layer: Any = model.get_submodule("blocks.1.attn")
    own, mask = layer.bias, torch.zeros(15)
    mask[3] = -5.0
    layer.bias = lambda: own() + mask
    images = np.zeros((1, 3, *config.image_size), np.float32)
    with pytest.raises(VitportError, match="no biases by relative position"):
        conversion.load(export(model, images, tmp_path / "a.onnx"))
