"""Models written for torchvision. Oracle: torchvision's own VisionTransformer with strict names."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torchvision", reason="the peer suite needs timm and torchvision: docs/testing.md")

import torch
import torchvision

import conversion
from tests.random_weights import random_params
from tests.small_configs import BASE
from tests.vit_torch.models import torch_model

pytestmark = pytest.mark.peer
SQUARE = BASE.replace(image_size=12)


@pytest.mark.parametrize(
    ("changes", "folds"),
    [
        ({"layer_scale": 1.0}, ["layer-scale"]),  # DINOv2 with a head on the class token
        ({"qkv_bias": False, "proj_bias": False, "norm_bias": False, "patch_bias": False}, []),
        ({"pos_embed": "patch"}, []),  # DeiT III
        ({"qk_scale": 0.6}, ["qk-scale"]),
        ({"layer_scale": 1.0, "qk_scale": 0.6, "pos_embed": "patch"}, ["layer-scale", "qk-scale"]),
    ],
)
def test_torchvision_gives_the_models_logits(changes, folds, tmp_path) -> None:
    """In float64; measured 2e-15 on values of order 1."""
    config = SQUARE.replace(**changes)
    params = random_params(config, seed=3)
    checkpoint = conversion.with_fold(conversion.Checkpoint.of(config, params), folds)
    conversion.save(checkpoint, tmp_path / "model.pth", format="torchvision")
    theirs = torchvision.models.VisionTransformer(
        image_size=12, patch_size=4, num_layers=2, num_heads=3, hidden_dim=24, mlp_dim=41, num_classes=7
    )
    theirs.double().eval().load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True), strict=True)
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch_model(config, params).eval()(images).numpy()
        np.testing.assert_allclose(theirs(images).numpy(), expected, rtol=0, atol=1e-12)
