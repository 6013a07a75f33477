"""A model's name against the tensors of another. Oracle: the sizes that the tensors were made with."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

import conversion
from conversion.identify.contradictions import check_sizes
from tests.random_weights import random_params
from vit_spec import VitportError, get_model, parameters

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


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"image_size": (16, 32)}, "vit_so400m_patch14_siglip_gap_384", "depth=27, but the tensors have depth=2"),
        ({"image_size": (16, 32), "depth": 12}, "vit_base_patch8_224", "embed_dim=768, but the tensors have .*=192"),
        ({"image_size": (16, 32), "depth": 12, "patch_size": 4}, "vit_tiny_patch16_224", "patch_size=16, but"),
        ({"depth": 14, "patch_size": 16}, "vit_little_patch16_reg4_gap_256", "embed_dim=320, but .*=192"),  # 5 heads
        ({"depth": 12, "patch_size": 16, "qk_norm": True}, "vit_tiny_patch16_224", "qk_norm=False, but .*=True"),
    ],
)
def test_a_wrong_name_is_said_before_what_follows_from_it(changes, name, words, tmp_path) -> None:
    """Position tables that fit no square, and widths that the name's heads do not divide, follow from the name."""
    sizes = {"patch_size": 8, "image_size": (16, 16), "num_classes": 3, "depth": 2}
    config = NAMED.replace(**sizes | changes)
    save_file(random_params(config, seed=1, dtype=np.float32), tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match=f"^{name} has {words}"):
        conversion.load(tmp_path / "w.safetensors", model=name)


def test_a_swin_transformer_of_other_heads_is_refused_by_its_name(tmp_path) -> None:
    named = get_model("swin_tiny_patch4_window7_224").config
    config = named.replace(depths=(2, 2), num_heads=(6, 12), embed_dim=24, image_size=(56, 56))
    save_file(random_params(config, seed=1, dtype=np.float32), tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match=r"^swin_tiny_patch4_window7_224 has depths=\(2, 2, 6, 2\), but .*\(2, 2\)"):
        conversion.load(tmp_path / "w.safetensors", model="swin_tiny_patch4_window7_224")
    shapes = {it.name: it.shape for it in parameters(named.replace(num_heads=(6, 12, 24, 48)))}
    with pytest.raises(VitportError, match=r"has num_heads=\(3, 6, 12, 24\), but the tensors have .*\(6, 12, 24, 48\)"):
        check_sizes("swin_tiny_patch4_window7_224", "swin", shapes)


def test_what_fine_tuning_changes_may_differ(tmp_path) -> None:
    config = NAMED.replace(image_size=(64, 32), num_classes=3)
    save_file(random_params(config, seed=1, dtype=np.float32), tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match="image_size"):  # a grid of 4 x 2 is not square: the size must be given
        conversion.load(tmp_path / "w.safetensors", model="vit_tiny_patch16_224")
    square = NAMED.replace(image_size=(64, 64), num_classes=3)
    save_file(random_params(square, seed=1, dtype=np.float32), tmp_path / "w.safetensors")
    assert conversion.load(tmp_path / "w.safetensors", model="vit_tiny_patch16_224").config == square
