"""Swin folders of timm whose arguments are not the name's. Oracle: timm's own model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm", reason="the peer suite needs timm and torchvision: docs/testing.md")

import timm
import torch
from timm.models import save_for_hf

import conversion
import vit_torch
from vit_spec import SwinConfig

pytestmark = pytest.mark.peer

SIZES = {"img_size": (64, 96), "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 5}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a window of two sides": ("swin_tiny_patch4_window7_224", {"window_size": (4, 6)}),
    "the same in version 2": ("swinv2_tiny_window8_256", {"window_size": (4, 6)}),
    "two stages of version 2": ("swinv2_tiny_window8_256", {"window_size": 5, "strict_img_size": False}),
    "a name of pretrained windows": ("swinv2_base_window12to16_192to256", {"window_size": 8}),
}


@pytest.mark.parametrize("case", CASES)
def test_arguments_are_read_as_timm_reads_them(case: str, tmp_path: Path) -> None:
    """Of the largest output: 4e-6 measured, as both sum in float32 in other orders; another window gives 1e-2."""
    name, arguments = CASES[case]
    theirs = timm.create_model(name, pretrained=False, **SIZES, **arguments).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_for_hf(theirs, str(tmp_path), model_args=SIZES | arguments)
    checkpoint = conversion.load(tmp_path)
    assert isinstance(checkpoint.config, SwinConfig)
    assert checkpoint.preprocessing.size == checkpoint.config.image_size == (64, 96)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    ours = vit_torch.create_model(weights=checkpoint).eval()
    with torch.no_grad():
        expected = theirs(images)
        assert (ours(images) - expected).abs().max() < 1e-5 * expected.abs().max()
