"""Every name of torchvision's Swin Transformers is its model. Oracle: torchvision's own of that name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchvision", reason="the peer suite needs timm and torchvision: docs/testing.md")

import jax.numpy as jnp
import torch
import torchvision
from flax import nnx

import conversion
import vit_jax
import vit_torch
from tests.cross.transformers_folders import randomize
from vit_spec import SwinConfig, count_parameters, get_model
from vit_spec.swin.models import MODELS

pytestmark = pytest.mark.peer
NAMES = [model.name for model in MODELS if torchvision.models.list_models(include=model.name)]
IN_JAX = ["swin_t", "swin_v2_t"]
"""The others differ in widths and depths alone, and compile for minutes."""


def test_all_six_are_here() -> None:
    assert sorted(NAMES) == sorted(torchvision.models.list_models(include="swin_*"))
    assert len(NAMES) == 6


@pytest.mark.parametrize("name", NAMES)
def test_size_and_preprocessing_are_those_of_the_published_weights(name: str) -> None:
    published = torchvision.models.get_model_weights(name).DEFAULT
    config, ours, theirs = get_model(name).config, get_model(name).preprocessing, published.transforms()
    assert isinstance(config, SwinConfig)
    idle = sum(width * depth for width, depth in zip(config.widths, config.depths, strict=True))  # biases of keys
    assert count_parameters(config) + (idle if config.version == 2 else 0) == published.meta["num_params"]
    assert ours.size == (theirs.crop_size[0],) * 2
    assert round(ours.size[0] / ours.crop_fraction) == theirs.resize_size[0]
    assert (ours.interpolation, list(ours.mean), list(ours.std)) == (
        theirs.interpolation.value, theirs.mean, theirs.std
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_that_name_gives_its_logits_and_goes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    """Random weights, whose key biases in version 2 torchvision ignores. In float32, of the largest logit, up to 4.2:
    measured 3.5e-6 on it. torchvision computes coordinates in float32, which moves them by its roundings."""
    theirs = randomize(torchvision.models.get_model(name))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    side = get_model(name).config.image_size[0]
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(images).numpy()
        found = [vit_torch.create_model(name, weights=tmp_path / "theirs.pth").eval()(images).numpy()]
    if name in IN_JAX:
        model = vit_jax.create_model(name, weights=tmp_path / "theirs.pth")
        model.eval()
        found.append(np.asarray(nnx.jit(model)(jnp.asarray(images.permute(0, 2, 3, 1).numpy()))))
    for logits in found:
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    read = conversion.load(tmp_path / "theirs.pth", model=name)
    conversion.save(read, tmp_path / "ours.pth", format="torchvision")
    again, config = torch.load(tmp_path / "ours.pth", weights_only=True), read.config
    assert isinstance(config, SwinConfig)
    assert set(again) == set(theirs.state_dict())
    for key, tensor in theirs.state_dict().items():
        if config.version == 2 and key.endswith("attn.qkv.bias"):
            width = len(tensor) // 3
            tensor[width : 2 * width] = 0
        if key.endswith("relative_coords_table"):
            torch.testing.assert_close(again[key], tensor, rtol=0, atol=3e-7)
        else:
            assert torch.equal(again[key], tensor), key
