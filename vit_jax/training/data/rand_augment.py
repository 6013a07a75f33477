"""RandAugment (Cubuk et al. 2020): fifteen operations, with the strengths of timm's increasing set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vit_jax.training.data.options import RandAugment

if TYPE_CHECKING:
    from PIL import Image

Operation = Callable[["Image.Image", float, int, "tuple[int, ...] | int"], "Image.Image"]
"""Picture, strength from 0 to 1, sign, colour beyond the edges → picture."""
_LARGEST = 10.0
"""Magnitude of strength 1."""


def rand_augment(
    image: Image.Image, options: RandAugment, mean: Sequence[float], rng: np.random.Generator
) -> Image.Image:
    """The picture after ``options.layers`` operations; what moves in from outside has the data's ``mean`` colour."""
    colours = tuple(round(255 * value) for value in mean)
    fill = colours[0] if len(colours) == 1 else colours
    names = list(OPERATIONS)
    for _ in range(options.layers):
        name = names[int(rng.integers(len(names)))]
        if rng.random() < options.probability:
            magnitude = min(max(rng.normal(options.magnitude, options.spread), 0.0), _LARGEST)
            image = OPERATIONS[name](image, magnitude / _LARGEST, 1 if rng.random() < 0.5 else -1, fill)
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


def _posterize(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
    kept = 4 - int(strength * 4)  # bits
    mask = 0xFF & ~(2 ** (8 - kept) - 1)
    return image.point([value & mask for value in range(256)] * len(image.getbands()))


def _solarize(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.solarize(image, 256 - int(strength * 256))


def _solarize_add(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
    added = int(strength * 110)
    table = [min(255, value + added) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _enhance(kind: str) -> Operation:
    def operation(image: Image.Image, strength: float, sign: int, fill: tuple[int, ...] | int) -> Image.Image:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, kind)(image).enhance(max(0.1, 1 + sign * strength * 0.9))

    return operation


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
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _enhance("Color"),
    "contrast": _enhance("Contrast"),
    "brightness": _enhance("Brightness"),
    "sharpness": _enhance("Sharpness"),
    "shear_x": _affine(lambda image, level: (1, level * 0.3, 0, 0, 1, 0)),
    "shear_y": _affine(lambda image, level: (1, 0, 0, level * 0.3, 1, 0)),
    "translate_x": _affine(lambda image, level: (1, 0, level * 0.45 * image.width, 0, 1, 0)),
    "translate_y": _affine(lambda image, level: (1, 0, 0, 0, 1, level * 0.45 * image.height)),
}
