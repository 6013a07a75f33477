"""RandAugment (Cubuk et al. 2020): image operations, and what strength means for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vit_jax.training.recipe.data import RandAugment

if TYPE_CHECKING:
    from PIL import Image

Operation = Callable[["Image.Image", float, int, "tuple[int, ...] | int"], "Image.Image"]
"""Image, strength from 0 to 1, sign, fill colour beyond the edges → image."""
_LARGEST = 10.0
"""The magnitude that is strength 1."""
_CUTOUT = 40 / 224
"""Half the side of the square as a share of the image's: the authors' 40 pixels of 224."""


def rand_augment(
    image: Image.Image, options: RandAugment, mean: Sequence[float], rng: np.random.Generator
) -> Image.Image:
    """The image after ``options.layers`` operations; areas beyond its edges get the data's ``mean`` colour."""
    colours = tuple(round(255 * value) for value in mean)
    fill = colours[0] if len(colours) == 1 else colours
    operations = OPERATIONS if options.levels == "increasing" else ORIGINAL
    names = [*operations] if options.levels == "increasing" else [*operations, "cutout"]
    for _ in range(options.layers):
        name = names[int(rng.integers(len(names)))]
        if rng.random() < options.probability:
            strength = min(max(rng.normal(options.magnitude, options.spread), 0.0), _LARGEST) / _LARGEST
            if name == "cutout":
                image = cutout(image, strength, fill, rng)
            else:
                image = operations[name](image, strength, 1 if rng.random() < 0.5 else -1, fill)
    return image


def cutout(image: Image.Image, strength: float, fill: tuple[int, ...] | int, rng: np.random.Generator) -> Image.Image:
    """The image with a square around a random pixel replaced by ``fill``."""
    x, y = int(rng.integers(image.width)), int(rng.integers(image.height))
    half = int(strength * _CUTOUT * image.height)
    image = image.copy()
    image.paste(fill, (max(x - half, 0), max(y - half, 0), min(x + half, image.width), min(y + half, image.height)))
    return image


def _auto_contrast(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.equalize(image)


def _invert(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.invert(image)


def _rotate(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
    from PIL import Image

    return image.rotate(sign * strength * 30, Image.Resampling.BILINEAR, fillcolor=fill)


def _posterize(bits: Callable[[float], int]) -> Operation:
    def operation(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
        mask = 0xFF & ~(2 ** (8 - bits(strength)) - 1)
        return image.point([value & mask for value in range(256)] * len(image.getbands()))

    return operation


def _solarize(threshold: Callable[[float], int]) -> Operation:
    def operation(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
        from PIL import ImageOps

        return ImageOps.solarize(image, threshold(strength))

    return operation


def _solarize_add(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
    added = int(strength * 110)
    table = [min(255, value + added) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _enhance(kind: str, factor: Callable[[float], float]) -> Operation:
    def operation(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, kind)(image).enhance(factor(sign * strength))

    return operation


def _either_way(signed: float) -> float:
    return max(0.1, 1 + signed * 0.9)


def _rising(signed: float) -> float:
    return 0.1 + 1.8 * abs(signed)


def _affine(coefficients: Callable[[Image.Image, float], tuple[float, ...]]) -> Operation:
    def operation(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
        from PIL import Image

        data = coefficients(image, sign * strength)
        return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=fill)

    return operation


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
    "rotate": _rotate,
    "posterize": _posterize(lambda strength: 4 - int(strength * 4)),
    "solarize": _solarize(lambda strength: 256 - int(strength * 256)),
    "solarize_add": _solarize_add,
    "color": _enhance("Color", _either_way),
    "contrast": _enhance("Contrast", _either_way),
    "brightness": _enhance("Brightness", _either_way),
    "sharpness": _enhance("Sharpness", _either_way),
    "shear_x": _affine(lambda image, level: (1, level * 0.3, 0, 0, 1, 0)),
    "shear_y": _affine(lambda image, level: (1, 0, 0, level * 0.3, 1, 0)),
    "translate_x": _affine(lambda image, level: (1, 0, level * 0.45 * image.width, 0, 1, 0)),
    "translate_y": _affine(lambda image, level: (1, 0, 0, 0, 1, level * 0.45 * image.height)),
}
"""The operations of timm's increasing set, with its strengths."""
ORIGINAL = OPERATIONS | {
    "posterize": _posterize(lambda strength: int(strength * 4)),
    "solarize": _solarize(lambda strength: int(strength * 256)),
    "color": _enhance("Color", _rising),
    "contrast": _enhance("Contrast", _rising),
    "brightness": _enhance("Brightness", _rising),
    "sharpness": _enhance("Sharpness", _rising),
}
"""The same with the strengths of the authors' code; without Cutout, which also draws a position."""
