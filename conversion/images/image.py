"""From a picture file to a model's input."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from vit_spec import Preprocessing, VitportError

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")
"""What is decoded: Pillow knows more, but may start a program for it (Ghostscript for EPS) on what a stranger sent."""


def load_picture(path: str | Path, preprocessing: Preprocessing) -> np.ndarray:
    """Read a picture and do to it what the model's weights expect.

    The steps are those of timm's evaluation transform (``shortest``) and of Hugging Face's ViTImageProcessor
    (``squash``), with Pillow's antialiased resampling. Orientation tags are applied; colours become RGB, or grey for a
    model of one channel.

    Returns:
        float32 (H, W, C), normalised. PyTorch wants (C, H, W).

    Raises:
        VitportError: if there is no such file, no picture in it, or one that is damaged, unsafe to decode or to scale,
            of more than 8 bits, or of other channels than ``preprocessing``.
    """
    path = Path(path)
    return normalize(crop(open_picture(path, grey=len(preprocessing.mean) == 1), preprocessing), preprocessing)


def open_picture(path: Path, *, grey: bool = False) -> Image.Image:
    """The whole decoded picture, upright, in RGB or grey."""
    from PIL import Image

    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise VitportError(f"{path} {what}: give the path of a picture, such as a JPEG or PNG file.")
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return decode_picture(file, str(path), grey=grey)
    except PermissionError as error:
        raise VitportError(f"{path} may not be read by you: change its permissions.") from error
    except OSError as error:
        raise VitportError(f"{path} cannot be read ({error}): give another path.") from error


def decode_picture(file: BinaryIO, name: str, *, grey: bool = False) -> Image.Image:
    """The whole picture of an open file, upright, in RGB or grey; ``name`` is what errors call it.

    Threads may call it at once: it does not touch the process's filter of warnings.

    Raises:
        VitportError: if there is no picture in it, or one that is damaged, unsafe to decode or of more than 8 bits.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            _check(image, name)
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            wanted = "L" if grey else "RGB"
            return image if image.mode == wanted else image.convert(wanted)  # even to its own mode it would copy
    except VitportError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise VitportError(_too_large(name)) from error
    except UnidentifiedImageError as error:
        raise VitportError(f"{name} is no picture that can be read: give a JPEG, PNG, WebP or TIFF file.") from error
    except Exception as error:  # Pillow raises nearly every kind on damaged bytes
        raise VitportError(f"{name} is a damaged picture ({error}): save it again.") from error


def _check(image: Image.Image, name: str) -> None:
    """Refuses what would be decoded unsafely or wrongly; only the file's head has been read so far."""
    from PIL import Image as Pillow

    if image.format not in _FORMATS:
        raise VitportError(
            f"{name} is in the format {image.format}, which is not read: give a JPEG, PNG, WebP or TIFF file."
        )
    if image.width * image.height > (Pillow.MAX_IMAGE_PIXELS or math.inf):  # where Pillow may only warn
        raise VitportError(_too_large(name))
    if image.mode.startswith(("I", "F")):  # Pillow turns all that is above 255 into white
        raise VitportError(
            f"{name} has pixels of more than 8 bits (Pillow's mode {image.mode}), whose range is not known: save it "
            "with 8 bits."
        )


def _too_large(name: str) -> str:
    from PIL import Image

    return f"{name} unpacks to more than {Image.MAX_IMAGE_PIXELS:,} pixels, which is not safe to read: scale it down."


def crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Scale and cut a picture to ``preprocessing.size``."""
    from PIL import Image

    height, width = preprocessing.size
    if preprocessing.resize == "squash":
        return image.resize((width, height), Image.Resampling[preprocessing.interpolation.upper()])
    goal = (math.floor(height / preprocessing.crop_fraction), math.floor(width / preprocessing.crop_fraction))
    image = covering(image, goal, preprocessing)
    left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    return image.crop((left, top, left + width, top + height))


def covering(image: Image.Image, goal: tuple[int, int], preprocessing: Preprocessing) -> Image.Image:
    """The picture scaled, in its own shape, until it just covers ``goal``: (height, width)."""
    from PIL import Image

    height, width = preprocessing.size
    if goal[0] == goal[1]:  # the shorter side decides, the longer one is cut down to whole pixels, as torchvision does
        short, long = sorted(image.size)
        longer = int(goal[0] * long / short)
        scaled = (goal[0], longer) if image.width <= image.height else (longer, goal[0])
    else:  # as timm does: its ResizeKeepRatio
        ratio = min(image.height / goal[0], image.width / goal[1])
        scaled = (round(image.width / ratio), round(image.height / ratio))
    if scaled[0] * scaled[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise VitportError(
            f"A picture of {image.height}x{image.width} pixels is too oblong: scaled to cover {height}x{width} it "
            f"would have {scaled[0] * scaled[1]:,} pixels, so cut it first."
        )
    return image.resize(scaled, Image.Resampling[preprocessing.interpolation.upper()])


def normalize(image: Image.Image | np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Pixels 0 … 255 of shape (H, W) or (H, W, C) as float32 (H, W, C), less the mean, over the deviation.

    Raises:
        VitportError: if the picture has another number of channels than ``preprocessing``.
    """
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] != len(preprocessing.mean):
        raise VitportError(
            f"A picture of shape {pixels.shape} does not fit a preprocessing of {len(preprocessing.mean)} channels: "
            "give (height, width, channels), and one mean and std for each channel."
        )
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    return (pixels / np.float32(255) - mean) / std
