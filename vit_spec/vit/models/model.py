"""The shorthand that the tables of names are written in."""

from __future__ import annotations

import re
from typing import Any

from vit_spec.model import Model
from vit_spec.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Interpolation,
    Preprocessing,
    ResizeMode,
)
from vit_spec.vit.config import ViTConfig

Options = dict[str, Any]
"""Arguments of :func:`model`, and fields of ViTConfig, shared by several names."""

Colours = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation per channel."""
IMAGENET: Colours = (IMAGENET_MEAN, IMAGENET_STD)
CENTRED: Colours = (HALF, HALF)
CLIP: Colours = (CLIP_MEAN, CLIP_STD)
UNSCALED: Colours = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

SIZES: dict[str, tuple[int, int, int, float]] = {
    "tiny": (192, 12, 3, 4),
    "wee": (256, 14, 4, 5),
    "xsmall": (256, 10, 4, 4),
    "little": (320, 14, 5, 5.6),
    "small": (384, 12, 6, 4),
    "medium": (512, 12, 8, 4),
    "mediumd": (512, 20, 8, 4),
    "betwixt": (640, 12, 10, 4),
    "base": (768, 12, 12, 4),
    "so150m2": (832, 21, 13, 34 / 13),
    "so150m": (896, 18, 14, 2.572),
    "plus": (896, 12, 14, 4),
    "large": (1024, 24, 16, 4),
    "intern300m": (1024, 24, 16, 4),
    "so400m": (1152, 27, 16, 4304 / 1152),
    "huge": (1280, 32, 16, 4),
    "giant": (1408, 40, 16, 48 / 11),
    "giantopt": (1536, 40, 16, 4),
    "gigantic": (1664, 48, 16, 64 / 13),
}
"""Word in a name → width, depth, heads, MLP ratio (Dosovitskiy et al. 2021, table 1; Touvron et al. 2021, table 1;
Zhai et al. 2022, table 2; Alabdulmohsin et al. 2023 for so400m)."""


def joined(*parts: Options) -> Options:
    """Options of several kinds; later ones overrule earlier ones."""
    return {name: value for part in parts for name, value in part.items()}


def model(
    name: str,
    size: str | tuple[int, int, int, float] | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    crop: float = 0.9,
    colours: Colours = CENTRED,
    interpolation: Interpolation = "bicubic",
    resize: ResizeMode = "shortest",
    **options: object,
) -> Model:
    """A model. Its name gives the patch size, and the model and image sizes unless they are arguments.

    Args:
        name: such as ``vit_base_patch32_clip_256``: the second word is a key of ``SIZES``, the last the image size.
        size: a key of ``SIZES``, or width, depth, heads and MLP ratio.
        image_size: height and width of the image in pixels, or a side.
        crop, colours, interpolation, resize: preprocessing.
        options: further fields of ``ViTConfig``.
    """
    words = name.split("_")
    width, depth, heads, ratio = SIZES[size or words[1]] if not isinstance(size, tuple) else size
    patch = re.search(r"patch(\d+)", name)
    side = image_size or int(words[-1])
    config = ViTConfig().replace(
        **{
            "patch_size": int(patch[1]) if patch else 16,
            "image_size": side,
            "embed_dim": width,
            "depth": depth,
            "num_heads": heads,
            "mlp_ratio": float(ratio),
        }
        | options
    )
    mean, std = colours
    return Model(
        name,
        config,
        Preprocessing(
            size=config.image_size, crop_fraction=crop, mean=mean, std=std, interpolation=interpolation, resize=resize
        ),
    )
