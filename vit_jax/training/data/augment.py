"""Random changes to training pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from conversion.picture import crop
from vit_jax.training.data.options import Augmentation
from vit_spec import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

_ATTEMPTS = 10
"""Random areas and ratios that are tried for a crop before its middle is taken; the number of the first code of it."""


def augment(
    image: Image.Image, preprocessing: Preprocessing, options: Augmentation, rng: np.random.Generator
) -> Image.Image:
    """A picture, RGB or grey, of any size → one of ``preprocessing.size``."""
    image = _cut(image, preprocessing, options, rng)
    if options.flip and rng.random() < options.flip:
        image = _flipped(image)
    return image


def _cut(
    image: Image.Image, preprocessing: Preprocessing, options: Augmentation, rng: np.random.Generator
) -> Image.Image:
    if options.crop == "random_resized":
        box = random_box(image.height, image.width, options, rng)
        return _resized(image.crop(box), preprocessing)
    image = crop(image, preprocessing)
    return shifted(image, options.pad, rng) if options.crop == "shift" else image


def random_box(height: int, width: int, options: Augmentation, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a part of random area and ratio (Szegedy et al. 2015, section 6).

    The area is uniform in ``options.scale``, the logarithm of the ratio in that of ``options.ratio``, the place
    uniform. What does not fit into the picture is drawn anew; after ten attempts the largest middle part of
    a ratio that is allowed is taken, as torchvision does.
    """
    low, high = (math.log(ratio) for ratio in options.ratio)
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*options.scale)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, options.ratio[0]), options.ratio[1])
    w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def shifted(image: Image.Image, pad: int, rng: np.random.Generator) -> Image.Image:
    """The picture moved by up to ``pad`` pixels along both axes, black where nothing is."""
    left, top = (int(offset) for offset in rng.integers(-pad, pad + 1, 2))
    return image.crop((left, top, left + image.width, top + image.height))


def _resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    from PIL import Image

    height, width = preprocessing.size
    return image.resize((width, height), Image.Resampling[preprocessing.interpolation.upper()])


def _flipped(image: Image.Image) -> Image.Image:
    from PIL import Image

    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
