"""Images and patches of another size. Oracles: torch's interpolation; the model's answers to the smaller image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vit_torch
from conversion import Checkpoint, resize_position_table, with_sizes
from conversion.tensors.check import check_complete
from tests.random_weights import random_images, random_params
from vit_spec import ViTConfig, VitportError

CONFIG = ViTConfig(
    image_size=(12, 20), patch_size=4, num_classes=7, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=41
)
CHECKPOINT = Checkpoint.of(CONFIG, random_params(CONFIG, seed=1))


@torch.no_grad()
def test_larger_patches_on_larger_images_give_the_same_outputs() -> None:
    """Patches of 4 become patches of 6 and so does every image's patch, resized by torch: the grid stays.

    Measured: 2e-15 on outputs of order 1.
    """
    sized = with_sizes(CHECKPOINT, image_size=(18, 30), patch_size=6)
    check_complete(sized.params.shapes, CONFIG.replace(image_size=(18, 30), patch_size=6))
    assert sized.preprocessing.size == (18, 30)
    images = torch.tensor(random_images(CONFIG, 2, seed=3))
    expected = _model(CHECKPOINT)(images)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4)  # (B, C, 3, 5, 4, 4)
    larger = torch.nn.functional.interpolate(patches.flatten(0, 3)[:, None], (6, 6), mode="bilinear")
    larger = larger.reshape(2, 3, 3, 5, 6, 6).permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 18, 30)
    assert (_model(sized)(larger) - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert sized.provenance.notes == (
        "changed: images of 18x30 pixels in place of 12x20",
        "changed: patches of 6 pixels in place of 4, the kernel resized by pseudo-inverse",
    )


def _model(checkpoint: Checkpoint) -> torch.nn.Module:
    return vit_torch.create_model(weights=checkpoint, dtype=torch.float64).eval()


def test_another_patch_alone_resizes_the_table_too() -> None:
    """Oracle: the table by its own function, which is held equal to torch's elsewhere."""
    sized = with_sizes(CHECKPOINT, patch_size=2)
    assert sized.config == CONFIG.replace(patch_size=2)
    expected = resize_position_table(
        CHECKPOINT.params["pos_embed"], prefix=1, source_grid=(3, 5), target_grid=(6, 10),
        method="torch-bicubic-antialias",
    )  # fmt: skip
    np.testing.assert_array_equal(sized.params["pos_embed"], expected)
    assert sized.provenance.notes[-1] == (
        "changed: position table of 6x10 in place of 3x5 patches, resized by torch-bicubic-antialias"
    )


@pytest.mark.parametrize(("method", "mode"), [("torch-bilinear", "bilinear"), ("torch-bicubic", "bicubic")])
def test_the_method_can_be_named(method, mode) -> None:
    """Oracle: torch's interpolation. Measured: 2e-15."""
    sized = with_sizes(CHECKPOINT, image_size=16, resize=method)
    table = torch.tensor(CHECKPOINT.params["pos_embed"])
    grid = table[:, 1:].reshape(1, 3, 5, 24).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (4, 4), mode=mode)
    expected = torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    np.testing.assert_allclose(sized.params["pos_embed"], expected, rtol=0, atol=1e-13)
    assert sized.provenance.notes[-1].endswith(f"4x4 in place of 3x5 patches, resized by {method}")


def test_no_table_is_no_obstacle() -> None:
    config = CONFIG.replace(pos_embed="none")
    sized = with_sizes(Checkpoint.of(config, random_params(config, seed=1)), image_size=8)
    assert sized.config.image_size == (8, 8)
    assert sized.provenance.notes == ("changed: images of 8x8 pixels in place of 12x20",)


def test_the_same_sizes_change_nothing_and_tell_nothing() -> None:
    sized = with_sizes(CHECKPOINT, image_size=(12, 20), patch_size=4)
    assert sized.provenance.notes == ()
    assert sized.params.tensors == CHECKPOINT.params.tensors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch_size": 13}, "its height 12 is below patch_size=13"),
        ({"patch_size": 0}, "patch_size=0 is too small"),
        ({"image_size": 8, "resize": "nearest"}, "choose one of torch-bicubic"),
        ({"resize": "torch-bicubic"}, "has nothing to resize"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(options, words) -> None:
    with pytest.raises(VitportError, match=words):
        with_sizes(CHECKPOINT, **options)
