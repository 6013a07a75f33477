"""From a stored image to pixels of the model's size."""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from conversion.images.image import crop, decode_image
from vit_jax.training.data.augment import augment
from vit_jax.training.data.record import Record
from vit_jax.training.recipe.data import Augmentation
from vit_spec import Preprocessing, VitportError

if TYPE_CHECKING:
    from PIL import Image


def evaluation_pixels(record: Record, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 (H, W, C), resized and cropped by the model's own preprocessing.

    Raises:
        VitportError: if the image cannot be read.
    """
    return np.asarray(crop(_decode(record, preprocessing), preprocessing)).reshape(*preprocessing.size, -1)


def training_pixels(
    record: Record, preprocessing: Preprocessing, options: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """uint8 (H, W, C), augmented; all random numbers come from ``rng``.

    Raises:
        VitportError: if the image cannot be read.
    """
    return augment(_decode(record, preprocessing), preprocessing, options, rng)


def _decode(record: Record, preprocessing: Preprocessing) -> Image.Image:
    from PIL import Image

    _silence_pillow()
    grey = len(preprocessing.mean) == 1
    if isinstance(record.image, bytes):
        return decode_image(io.BytesIO(record.image), record.name, grey=grey)
    if record.image.ndim != 3 or record.image.shape[2] not in (1, 3):
        raise VitportError(f"{record.name} has shape {record.image.shape}: expected (H, W, 1) or (H, W, 3).")
    pixels = record.image[..., 0] if record.image.shape[2] == 1 else record.image
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("L" if grey else "RGB")


@cache
def _silence_pillow() -> None:
    """It warns of images that are refused anyway, and of what is damaged beside their pixels."""
    from PIL import Image

    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
