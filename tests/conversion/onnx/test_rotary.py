"""Graphs of models with rotary positions, from the tracing exporter. Oracle: onnxruntime on the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx.reference import ReferenceEvaluator

import conversion
import vit_torch
from conversion import Checkpoint
from conversion.graph.layout import LAYOUTS
from tests.conversion.onnx.test_original_order import export
from tests.cross.transformers_folders import randomize
from tests.random_weights import random_params
from tests.small_configs import BASE
from vit_parity.endpoints.onnx_graph import OnnxGraph
from vit_spec import ViTConfig, VitportError
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary
from vit_torch.layers.constant import make_table

WIDE = BASE.replace(image_size=(20, 28))  # 5 x 7 patches
BARE: dict[str, Any] = {"pos_embed": "none", "register_tokens": 2}
MODELS: dict[str, dict[str, Any]] = {
    "DINOv3": BARE | {"rotary": DinoV3Rotary(), "qkv_bias": False, "layer_scale": 1e-5},
    "another theta": BARE | {"rotary": DinoV3Rotary(theta=73.5)},
    "periods of bfloat16": BARE | {"rotary": DinoV3Rotary(periods=(1.0078125, 12.25))},
    "EVA-02": {"rotary": AxialRotary(reference_grid=(16, 16)), "mlp": "swiglu", "mlp_norm": True, "attn_norm": True},
    "SBB": BARE | {"rotary": AxialRotary(), "class_token": False, "pool": "avg", "final_norm": "pooled"},
    "PE": {
        "rotary": AxialRotary(order="wh", offset=1.0, reference_grid=(24, 24)), "pre_norm": True, "patch_bias": False,
        "pool": "map", "pool_prefix": True, "map_heads": 8,
    },
    "halves": BARE | {"rotary": AxialRotary(theta=100.0, pairs="halves"), "qk_norm": True},
    "another grid": BARE | {"rotary": AxialRotary(theta=2500.0, reference_grid=(9, 4), offset=0.5), "qk_scale": 0.6},
    "mixed": BARE | {"rotary": MixedRotary()},
    "mixed beside a table": {"rotary": MixedRotary(), "pos_embed": "patch"},
}  # fmt: skip


AS_WELL = "pos_embed_resize", "pos_embed", "class_token", "register_tokens"
"""A graph does not tell a class token from a register, or from a class token with a position added."""


def made(config: ViTConfig) -> tuple[torch.nn.Module, np.ndarray]:
    model = vit_torch.create_model(weights=Checkpoint.of(config, random_params(config, seed=2, dtype=np.float32)))
    return model, np.random.default_rng(3).standard_normal((2, 3, *config.image_size)).astype(np.float32)


def table_of(rows: torch.Tensor) -> torch.nn.Module:
    return make_table(tuple(tuple(map(float, row)) for row in rows))


@pytest.mark.parametrize("name", MODELS)
def test_our_own_models_come_back(name: str, tmp_path: Path) -> None:
    """Measured 1.1e-6 of the largest value at most."""
    config = WIDE.replace(**MODELS[name])
    model, images = made(config)
    path = export(model, images, tmp_path / "a.onnx")
    checkpoint = conversion.load(path)
    assert checkpoint.config.rotary == config.rotary
    same = {field: getattr(config, field) for field in AS_WELL}
    assert checkpoint.config.replace(**same) == config
    found = vit_torch.create_model(weights=checkpoint).eval()(torch.tensor(images)).detach().numpy()
    expected = OnnxGraph(path).activations(images.transpose(0, 2, 3, 1))["head"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


def test_a_grid_that_a_graph_cannot_show_may_be_stated(tmp_path: Path) -> None:
    """Coordinates scaled to the graph's own grid are its own; any other grid is a contradiction."""
    config = BASE.replace(image_size=(16, 16), rotary=AxialRotary(reference_grid=(4, 4)))
    model, images = made(config)
    path = export(model, images, tmp_path / "a.onnx")
    unstated = conversion.load(path)
    assert unstated.config.rotary == AxialRotary()
    assert any("at its own size alone" in note for note in unstated.provenance.notes)
    assert conversion.load(path, model=config).config.rotary == config.rotary
    assert conversion.load(path, facts={"rotary": config.rotary}).config.rotary == config.rotary
    with pytest.raises(VitportError, match="contradicts the file"):
        conversion.load(path, facts={"rotary": AxialRotary(reference_grid=(8, 4))})


@pytest.mark.parametrize("axis", range(-3, 4))
def test_flatten_counts_axes_from_either_end(axis: int) -> None:
    """timm's angles are flattened before their last axis. Oracle: onnx's reference."""
    x = np.zeros((2, 3, 5), np.float32)
    node = onnx.helper.make_node("Flatten", ["x"], ["y"], axis=axis)
    (expected,) = ReferenceEvaluator(node).run(None, {"x": x})
    (found,) = LAYOUTS["Flatten"](x, [], {"axis": axis}, 17, 1)
    assert np.shape(found) == np.shape(expected)


@pytest.mark.parametrize("gated", [False, True])
def test_transformers_dinov3_comes_back(gated: bool, tmp_path: Path) -> None:
    """In float32; measured 6.5e-7 of the largest value."""
    config = transformers.DINOv3ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, patch_size=4, intermediate_size=40, image_size=20,
        num_register_tokens=3, use_gated_mlp=gated, hidden_act="silu" if gated else "gelu",
    )  # fmt: skip
    theirs = randomize(transformers.DINOv3ViTModel(config)).eval()
    images = np.random.default_rng(3).standard_normal((2, 3, 20, 28)).astype(np.float32)

    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = theirs

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.model(pixels).last_hidden_state

    path = export(Tokens(), images, tmp_path / "a.onnx")
    checkpoint = conversion.load(path)
    assert checkpoint.config.rotary == DinoV3Rotary()
    assert checkpoint.config.register_tokens == 3
    with torch.no_grad():
        expected = theirs(torch.tensor(images)).last_hidden_state.numpy()
        found = vit_torch.create_model(weights=checkpoint).eval().forward_features(torch.tensor(images)).numpy()
    for part in (slice(0, 1), slice(1, 4), slice(4, None)):  # class token, registers, patches
        largest = np.abs(expected[:, part]).max()
        np.testing.assert_allclose(found[:, part], expected[:, part], rtol=0, atol=5e-6 * largest)


def test_angles_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    """A turn that grows with the square of the row."""
    config = WIDE.replace(**MODELS["DINOv3"])
    model, images = made(config)
    angles = torch.zeros(38, 4)
    angles[3:] = (torch.arange(5.0) ** 2).repeat_interleave(7)[:, None] * torch.tensor([1.0, 0.5, 0.25, 0.125])
    for block in ("blocks.0", "blocks.1"):
        turns: Any = model.get_submodule(f"{block}.attn.rotary")
        turns.cos, turns.sin = table_of(torch.cos(angles)), table_of(torch.sin(angles))
    with pytest.raises(VitportError, match="by angles that are none of"):
        conversion.load(export(model, images, tmp_path / "a.onnx"))


def test_turned_prefix_tokens_are_refused(tmp_path: Path) -> None:
    config = WIDE.replace(**MODELS["SBB"] | {"rotary": AxialRotary()})
    model, images = made(config)
    for block in ("blocks.0", "blocks.1"):
        turns: Any = model.get_submodule(f"{block}.attn.rotary")
        turns.cos, turns.sin = (table_of(torch.roll(table[:], -2, 0)) for table in (turns.cos, turns.sin))
    with pytest.raises(VitportError, match="tokens before the patches"):
        conversion.load(export(model, images, tmp_path / "a.onnx"))
