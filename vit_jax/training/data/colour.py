"""Random colour augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_RADIUS = (0.1, 2.0)
"""Smallest and largest blur in DeiT III, in pixels: the standard deviation of Pillow's approximate Gaussian."""
_SOLARISED_FROM = 128


def jittered(image: Image.Image, largest: float, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation, in random order, each scaled by a factor uniform in 1 ± ``largest``."""
    from PIL import ImageEnhance

    for kind in rng.permutation(3):
        factor = rng.uniform(max(0.0, 1 - largest), 1 + largest)
        enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
        image = enhancer(image).enhance(factor)
    return image


def three_augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Greyscale, solarise or blur, each with probability 1/3 (Touvron et al. 2022, section 3.2)."""
    from PIL import ImageFilter, ImageOps

    match int(rng.integers(3)):
        case 0:
            return image.convert("L").convert(image.mode)
        case 1:
            return ImageOps.solarize(image, _SOLARISED_FROM)
        case _:
            return image.filter(ImageFilter.GaussianBlur(rng.uniform(*_RADIUS)))
