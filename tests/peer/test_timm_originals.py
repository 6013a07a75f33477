"""Files in the names of other authors, read by timm's own loader. Oracle: timm's outputs for what vitport wrote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm", reason="the peer suite needs timm and torchvision: docs/testing.md")

import numpy as np
import timm
import torch
from timm.models import beit, eva, vision_transformer_relpos

import conversion
import vit_torch
from tests.random_weights import random_params
from vit_spec import ViTConfig, get_model

pytestmark = pytest.mark.peer

CASES: dict[str, tuple[str, str]] = {
    "DINOv3": ("vit_small_patch16_dinov3_qkvb", "dinov3"),
    "DINOv3 without biases, gated": ("vit_small_plus_patch16_dinov3", "dinov3"),
    "PE core": ("vit_pe_core_tiny_patch16_384", "perception"),
    "PE lang": ("vit_pe_lang_large_patch14_448", "perception"),
    "EVA-02 split": ("eva02_base_patch14_448", "timm"),
    "EVA-02 fused": ("eva02_tiny_patch14_336", "timm"),
    "RoPE-ViT mixed": ("vit_small_patch16_rope_mixed_ape_224", "timm"),
    "BEiT": ("beitv2_base_patch16_224", "timm"),
    "branches": ("vit_small_patch16_18x2_224", "timm"),
    "differential": ("vit_dwee_patch16_reg1_gap_256", "timm"),
    "differential, parallel": ("vit_dpwee_patch16_reg1_gap_256", "timm"),
    "relative positions": ("vit_relpos_medium_patch16_cls_224", "timm"),
    "relative positions, norms after": ("vit_relpos_small_patch16_rpn_224", "timm"),
    "relative positions, shared": ("vit_srelpos_small_patch16_224", "timm"),
}


def without_head_bias(name: str, x: np.ndarray) -> np.ndarray:
    """The authors' PE has none."""
    return np.zeros_like(x) if name == "head.bias" else x


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_what_timm_s_loader_reads(case: str, tmp_path: Path) -> None:
    """Every tensor finds its place; outputs agree to float32's rounding, 1e-6 measured."""
    name, form = CASES[case]
    config = get_model(name).config.replace(depth=2)
    assert isinstance(config, ViTConfig)
    config = config.replace(pool="token") if form == "dinov3" else config  # timm's mean is none of the authors'
    params = {key: without_head_bias(key, it) for key, it in random_params(config, 1, np.float32).items()}
    if "shared" in case:  # timm has one network for all blocks
        params |= {key: params[re.sub(r"\d+", "0", key, count=1)] for key in params if ".rel_pos." in key}
    checkpoint = conversion.Checkpoint.of(config, params)
    conversion.save(checkpoint, tmp_path / "file", format=form, activation="keep")
    source: Any = conversion.load(tmp_path / "file").provenance.format
    theirs = timm.create_model(
        name, depth=2, pretrained=False, img_size=config.image_size, global_pool=config.pool
    ).eval()
    state: dict[str, torch.Tensor] = _tensors(tmp_path / "file", form)
    loaders = {"timm-relpos": vision_transformer_relpos.checkpoint_filter_fn}
    if "beit" in name:
        loaders["timm-eva"] = beit.checkpoint_filter_fn
    loader = loaders.get(source, eva.checkpoint_filter_fn)
    theirs.load_state_dict(loader(state, theirs), strict=True)
    images = torch.randn(1, 3, *config.image_size, generator=torch.Generator().manual_seed(0))
    ours = vit_torch.create_model(weights=checkpoint).eval()
    with torch.no_grad():
        found, expected = ours(images), theirs(images)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def _tensors(path: Path, form: str) -> dict[str, torch.Tensor]:
    if form == "timm":
        from safetensors.torch import load_file

        return load_file(path)
    return dict(torch.load(path, weights_only=True))
