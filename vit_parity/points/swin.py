"""The activations of a Swin Transformer."""

from __future__ import annotations

from vit_parity.points.common import Point
from vit_spec import SwinConfig, segments


def embed_point(config: SwinConfig) -> Point:
    """What the first block reads."""
    return Point("embed", segments(config)[0].block(0), "input")
