"""Reading, cropping and normalising images for a model."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from conversion.hub import local
from vit_spec import Preprocessing, VitportError

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")
"""The formats to decode. Pillow reads more, but may start another program to do it (Ghostscript for EPS)."""


_WIDE = ("I", "F")
"""How Pillow's modes of images with more than 8 bits a channel begin."""


def load_image(path: str | Path, preprocessing: Preprocessing) -> np.ndarray:
    """Read an image and preprocess it as the model's weights expect.

    The steps are those of timm's evaluation transform (``shortest``) and of Hugging Face's image processors, with
    Pillow's antialiased resampling. Orientation tags are applied; colours become RGB, or grey for a
    model with one channel.

    Args:
        path: an image file, here or in a bucket.
        preprocessing: the size to scale and crop to, and the mean and std of each channel.

    Returns:
        float32 (H, W, C), normalised; PyTorch's models take (C, H, W).

    Raises:
        VitportError: if the file is missing, not an image, damaged, unsafe to decode or to scale, has more than 8 bits,
            or has another number of channels than ``preprocessing``.
    """
    path = local(path)
    return normalize(crop(open_image(path, grey=len(preprocessing.mean) == 1), preprocessing), preprocessing)


def open_image(path: Path, *, grey: bool = False) -> Image.Image:
    """Decode a whole image, upright, in RGB or grey.

    Raises:
        VitportError: if the file cannot be read, or as :func:`decode_image` does.
    """
    from PIL import Image

    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise VitportError(f"{path} {what}: give the path of an image, such as a JPEG or PNG file.")
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # what is damaged is refused, or shows
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return decode_image(file, str(path), grey=grey)
    except PermissionError as error:
        raise VitportError(f"You have no permission to read {path}: change its permissions.") from error
    except OSError as error:
        raise VitportError(f"{path} cannot be read ({error}): give another path.") from error


def decode_image(file: BinaryIO, name: str, *, grey: bool = False) -> Image.Image:
    """Decode the whole image in an open file, upright, in RGB or grey. Safe to call from several threads.

    Args:
        file: open for reading bytes.
        name: what errors call the file.
        grey: one channel instead of three.

    Raises:
        VitportError: if the file is not an image, or the image is damaged, unsafe to decode or has more than 8 bits.
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
        raise VitportError(f"{name} is not an image that can be read: give a JPEG, PNG, WebP or TIFF file.") from error
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise VitportError(f"{name} is a damaged image ({error}): save it again.") from error


def decode_wide(file: BinaryIO, name: str) -> np.ndarray | None:
    """The pixels (H, W) of an upright image of more than 8 bits a channel, as they are stored; ``None`` for any other
    file, at whose beginning ``file`` then is.

    Raises:
        VitportError: if such an image is damaged, or unsafe to decode.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.format not in _FORMATS or not image.mode.startswith(_WIDE):
                return None
            _check_size(image, name)
            return np.asarray(ImageOps.exif_transpose(image))
    except VitportError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombWarning, Image.DecompressionBombError):
        return None
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise VitportError(f"{name} is a damaged image ({error}): save it again.") from error


def _check(image: Image.Image, name: str) -> None:
    """Refuse what would be decoded unsafely or wrongly. Pillow has read only the header so far."""

    if image.format not in _FORMATS:
        raise VitportError(f"{name} has the unsupported format {image.format}: give a JPEG, PNG, WebP or TIFF file.")
    _check_size(image, name)
    if image.mode.startswith(_WIDE):  # Pillow clips values above 255 to white
        raise VitportError(
            f"{name} has more than 8 bits a channel (Pillow's mode {image.mode}), and nothing says their range: save "
            "it with 8 bits, or train with --data.range LOW HIGH."
        )


def _check_size(image: Image.Image, name: str) -> None:
    from PIL import Image as Pillow

    if image.width * image.height > (Pillow.MAX_IMAGE_PIXELS or math.inf):  # Pillow itself may only warn
        raise VitportError(_too_large(name))


def _too_large(name: str) -> str:
    from PIL import Image

    return f"{name} decodes to more than {Image.MAX_IMAGE_PIXELS:,} pixels, which is unsafe: scale it down."


def crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Scale and crop an image to ``preprocessing.size``."""
    from PIL import Image

    height, width = preprocessing.size
    if preprocessing.resize == "squash":
        return image.resize((width, height), Image.Resampling[preprocessing.interpolation.upper()])
    goal = (math.floor(height / preprocessing.crop_fraction), math.floor(width / preprocessing.crop_fraction))
    if preprocessing.resize == "squash_crop":
        image = image.resize((goal[1], goal[0]), Image.Resampling[preprocessing.interpolation.upper()])
    else:
        edge = max(goal) if preprocessing.cropping == "transformers" else None
        image = covering(image, goal if edge is None else (edge, edge), preprocessing)
    down = math.floor if preprocessing.cropping == "transformers" else round
    left, top = down((image.width - width) / 2.0), down((image.height - height) / 2.0)
    return image.crop((left, top, left + width, top + height))


def covering(image: Image.Image, goal: tuple[int, int], preprocessing: Preprocessing) -> Image.Image:
    """The image scaled, with its aspect ratio kept, so that it just covers ``goal``: (height, width).

    Raises:
        VitportError: if the scaled image would have more pixels than Pillow considers safe.
    """
    from PIL import Image

    height, width = preprocessing.size
    if goal[0] == goal[1]:  # as torchvision: the shorter side decides, the longer one is rounded down
        short, long = sorted(image.size)
        longer = int(goal[0] * long / short)
        scaled = (goal[0], longer) if image.width <= image.height else (longer, goal[0])
    else:  # as timm's ResizeKeepRatio
        ratio = min(image.height / goal[0], image.width / goal[1])
        scaled = (round(image.width / ratio), round(image.height / ratio))
    if scaled[0] * scaled[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise VitportError(
            f"An image of {image.height}x{image.width} pixels is too oblong: scaled to cover {height}x{width} it "
            f"would have {scaled[0] * scaled[1]:,} pixels. Crop it first."
        )
    return image.resize(scaled, Image.Resampling[preprocessing.interpolation.upper()])


def normalize(image: Image.Image | np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Divide pixels by 255, subtract the mean, divide by the standard deviation.

    Args:
        image: pixels 0 … 255, (H, W) or (H, W, C).
        preprocessing: the mean and std of each channel.

    Returns:
        float32 (H, W, C).

    Raises:
        VitportError: if the image has another number of channels than ``preprocessing``.
    """
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] != len(preprocessing.mean):
        raise VitportError(
            f"An image of shape {pixels.shape} does not fit a preprocessing with {len(preprocessing.mean)} channels: "
            "give (height, width, channels), and one mean and std for each channel."
        )
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    return (pixels / np.float32(255) - mean) / std
