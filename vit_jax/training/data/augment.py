"""Random augmentation of training images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from conversion.images.image import covering, crop
from vit_jax.training.data.colour import jittered, three_augment
from vit_jax.training.data.rand_augment import rand_augment
from vit_jax.training.recipe.data import Augmentation
from vit_spec import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

_ATTEMPTS = 10
"""Random crops or rectangles that are tried before giving up; torchvision and timm try as often."""
_MIRRORED = 4
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_LOG_RATIO = math.log(1 / 0.3)


def augment(
    image: Image.Image, preprocessing: Preprocessing, options: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """An image, RGB or grey, of any size → uint8 (H, W, C) of ``preprocessing.size``."""
    image = _crop(image, preprocessing, options, rng)
    if rng.random() < options.flip:
        image = _flipped(image)
    if options.randaugment.layers:
        image = rand_augment(image, options.randaugment, preprocessing.mean, rng)
    if options.three_augment:
        image = three_augment(image, rng)
    if options.jitter:
        image = jittered(image, options.jitter, rng)
    pixels = np.asarray(image).reshape(*preprocessing.size, -1)
    return erased(pixels, preprocessing, rng) if rng.random() < options.erasing else pixels


def _crop(
    image: Image.Image, preprocessing: Preprocessing, options: Augmentation, rng: np.random.Generator
) -> Image.Image:
    match options.crop:
        case "random_resized":
            box = random_box(image.height, image.width, options, rng)
            return _resized(image.crop(box), preprocessing)
        case "resize_crop":
            return random_crop(covering(image, preprocessing.size, preprocessing), preprocessing.size, rng)
        case "shift":
            return shifted(crop(image, preprocessing), options.pad, rng)
        case "none":
            return crop(image, preprocessing)


def random_box(height: int, width: int, options: Augmentation, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a crop of random area and aspect ratio (Szegedy et al. 2015, section 6).

    The area is uniform in ``options.scale``, the logarithm of the aspect ratio in that of ``options.ratio``, the
    position uniform. A crop that does not fit is drawn again; after ten attempts it is the largest central crop with an
    allowed aspect ratio, as in torchvision.
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


def random_crop(image: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A crop of ``size`` (height, width) at a random position of the image, padded by 4 mirrored pixels."""
    from PIL import Image

    pixels = np.asarray(image)
    pad = [(_MIRRORED, _MIRRORED)] * 2 + [(0, 0)] * (pixels.ndim - 2)
    pixels = np.pad(pixels, pad, mode="reflect")
    top, left = (int(rng.integers(have - want + 1)) for have, want in zip(pixels.shape, size, strict=False))
    return Image.fromarray(np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]]))


def shifted(image: Image.Image, pad: int, rng: np.random.Generator) -> Image.Image:
    """The image shifted by up to ``pad`` pixels along both axes, padded with black."""
    left, top = (int(offset) for offset in rng.integers(-pad, pad + 1, 2))
    return image.crop((left, top, left + image.width, top + image.height))


def erased(pixels: np.ndarray, preprocessing: Preprocessing, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, C) with a rectangle of 2 % to a third of the image replaced by noise.

    The noise is normal with the data's mean and standard deviation, as in timm's ``pixel`` mode after normalisation,
    but clipped at black and white. A rectangle that does not fit is drawn again, ten times at most.
    """
    height, width, channels = pixels.shape
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*_ERASED_AREA)
        ratio = math.exp(rng.uniform(-_ERASED_LOG_RATIO, _ERASED_LOG_RATIO))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            noise = rng.normal(preprocessing.mean, preprocessing.std, (h, w, channels)) * 255
            pixels = pixels.copy()
            pixels[top : top + h, left : left + w] = noise.round().clip(0, 255).astype(np.uint8)
            break
    return pixels


def _resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    from PIL import Image

    height, width = preprocessing.size
    return image.resize((width, height), Image.Resampling[preprocessing.interpolation.upper()])


def _flipped(image: Image.Image) -> Image.Image:
    from PIL import Image

    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
