"""What a user may not expect of a Vision Transformer, in words."""

from __future__ import annotations

from vit_spec.vit.config import ViTConfig
from vit_spec.vit.rotary import DinoV3Rotary


def remarks(config: ViTConfig) -> tuple[str, ...]:
    """Sentences about what of an image belongs to no patch, and about periods that theta does not give."""
    return (*_margin(config), *_periods(config))


def _margin(config: ViTConfig) -> tuple[str, ...]:
    """None where patches fill the image."""
    (height, width), (rows, columns) = config.image_size, config.margin
    if not (rows or columns):
        return ()
    return (
        f"images of {height}x{width} pixels do not divide into patches of {config.patch_size}: the last {rows} "
        f"rows and the last {columns} columns are not read",
    )


def _periods(config: ViTConfig) -> tuple[str, ...]:
    rotary = config.rotary
    if not isinstance(rotary, DinoV3Rotary) or rotary.periods is None:
        return ()
    usual = DinoV3Rotary(theta=rotary.theta).all_periods(config.head_dim)
    furthest = max(abs(own / theirs - 1) for own, theirs in zip(rotary.periods, usual, strict=True))
    return (
        f"the periods of the rotary positions differ from those of theta {rotary.theta:g} by up to {furthest:.1e}: "
        "they are kept, and formats that compute them refuse the model",
    )
