"""transformers' own run of DINOv3 and BEiT beside ours, activation by activation, by ``vitport compare``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

import vitport
from tests.cross.transformers_folders import randomize

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 70, "patch_size": 16,
         "image_size": 64}  # fmt: skip
MODELS = {
    "DINOv3": lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**SIZES, num_register_tokens=4)),
    "DINOv3, gated, with biases of keys": lambda: transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(**SIZES, use_gated_mlp=True, hidden_act="silu", key_bias=True)
    ),
    "BEiT": lambda: transformers.BeitForImageClassification(
        transformers.BeitConfig(**SIZES, use_relative_position_bias=True, num_labels=5)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_two_runs_of_one_model_differ_by_rounding_alone(name: str, tmp_path: Path) -> None:
    """In float32, each against float64 with bounds of its own."""
    torch.manual_seed(0)
    randomize(MODELS[name]()).save_pretrained(tmp_path)
    found = vitport.compare(tmp_path, f"transformers:{tmp_path}").comparison
    assert found.first_divergence is None
    rows = {row.name for row in found.rows}
    assert {"patch_embed.proj", "embed", "blocks.0.attn.q", "blocks.1.attn.softmax", "blocks.1.mlp.act"} <= rows
    biased = name != "DINOv3, gated, with biases of keys"  # then our joint layer is without them
    assert ("blocks.0.attn.qkv" in rows) != biased
