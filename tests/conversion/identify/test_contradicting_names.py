"""A model's name against the tensors of another. Oracle: the sizes that the tensors were made with."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

import conversion
from tests.random_weights import random_params
from vit_spec import VitportError, get_model

NAMED = get_model("vit_tiny_patch16_224").config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": 2}, "depth=12, but the tensors have depth=2"),
        ({"embed_dim": 96}, "embed_dim=192, but the tensors have embed_dim=96"),
        ({"patch_size": 32}, "patch_size=16, but the tensors have patch_size=32"),
        ({"pos_embed": "none"}, "position table"),
    ],
)
def test_a_name_of_another_model_is_refused(changes, words, tmp_path) -> None:
    save_file(random_params(NAMED.replace(**changes), seed=1, dtype=np.float32), tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match=f"vit_tiny_patch16_224 has.*{words}"):
        conversion.load(tmp_path / "w.safetensors", model="vit_tiny_patch16_224")


def test_what_fine_tuning_changes_may_differ(tmp_path) -> None:
    config = NAMED.replace(image_size=(64, 32), num_classes=3)
    save_file(random_params(config, seed=1, dtype=np.float32), tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match="image_size"):  # a grid of 4 x 2 is not square: the size must be given
        conversion.load(tmp_path / "w.safetensors", model="vit_tiny_patch16_224")
    square = NAMED.replace(image_size=(64, 64), num_classes=3)
    save_file(random_params(square, seed=1, dtype=np.float32), tmp_path / "w.safetensors")
    assert conversion.load(tmp_path / "w.safetensors", model="vit_tiny_patch16_224").config == square
