"""From a picture file to a model's input."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_spec import Preprocessing, VitportError

if TYPE_CHECKING:
    from PIL import Image


def load_picture(path: str | Path, preprocessing: Preprocessing) -> np.ndarray:
    """Read a picture and do to it what the model's weights expect.

    The steps are those of timm's evaluation transform (``shortest``) and of Hugging Face's ViTImageProcessor
    (``squash``), with Pillow's antialiased resampling. Orientation tags are applied; colours become RGB, or grey for a
    model of one channel.

    Returns:
        float32 (H, W, C), normalised. PyTorch wants (C, H, W).

    Raises:
        VitportError: if there is no such file, or no picture in it.
    """
    path = Path(path)
    return normalize(crop(open_picture(path, grey=len(preprocessing.mean) == 1), preprocessing), preprocessing)


def open_picture(path: Path, *, grey: bool = False) -> Image.Image:
    """The whole decoded picture, upright, in RGB or grey."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise VitportError(f"{path} {what}: give the path of a picture, such as a JPEG or PNG file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return ImageOps.exif_transpose(image).convert("L" if grey else "RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise VitportError(f"{path} unpacks to more pixels than are safe to read ({error}): scale it down.") from error
    except UnidentifiedImageError as error:
        raise VitportError(f"{path} is no picture that can be read: give a JPEG, PNG, WebP or TIFF file.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise VitportError(f"{path} is a damaged picture ({error}): save it again.") from error


def crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Scale and cut a picture to ``preprocessing.size``."""
    from PIL import Image

    height, width = preprocessing.size
    method = Image.Resampling[preprocessing.interpolation.upper()]
    if preprocessing.resize == "squash":
        return image.resize((width, height), method)
    goal = (math.floor(height / preprocessing.crop_fraction), math.floor(width / preprocessing.crop_fraction))
    if goal[0] == goal[1]:  # the shorter side decides, the longer one is cut down to whole pixels, as torchvision does
        short, long = sorted(image.size)
        longer = int(goal[0] * long / short)
        scaled = (goal[0], longer) if image.width <= image.height else (longer, goal[0])
    else:
        ratio = max(goal[0] / image.height, goal[1] / image.width)
        scaled = (round(image.width * ratio), round(image.height * ratio))
    image = image.resize(scaled, method)
    left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    return image.crop((left, top, left + width, top + height))


def normalize(image: Image.Image | np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Pixels 0 … 255 of shape (H, W) or (H, W, C) as float32 (H, W, C), less the mean, over the deviation."""
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    mean, std = np.float32(preprocessing.mean), np.float32(preprocessing.std)
    return (pixels / np.float32(255) - mean) / std
