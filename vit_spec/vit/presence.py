"""What the presence of parameters says about a ViT."""

from __future__ import annotations

from collections.abc import Iterable

from vit_spec.presence import shown_options as shown
from vit_spec.vit.config import ViTConfig

_BASES = (
    ViTConfig(depth=1, mlp_bias=False),
    ViTConfig(depth=1, mlp_bias=False, qkv_bias=False),
    ViTConfig(depth=1, mlp_bias=False, pool="avg"),
    ViTConfig(depth=1, block="parallel"),
    ViTConfig(depth=1, mlp_bias=False, block="branched"),
    ViTConfig(depth=1, mlp_bias=False, block="branched", qkv_bias=False),
)
"""Biases of the MLP show nothing of those of attention."""


def shown_options(names: Iterable[str]) -> dict[str, bool]:
    """See :func:`vit_spec.presence.shown_options`."""
    return shown(names, *_BASES)
