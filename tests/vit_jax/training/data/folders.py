"""Small data sets on disk, made for the tests."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def smooth_image(seed: int, size: tuple[int, int] = (20, 26)) -> np.ndarray:
    """Smooth colours uint8 (H, W, 3), different for every seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def image_folder(root: Path, count: int = 8, classes: tuple[str, ...] = CLASSES) -> Path:
    """``count`` PNG files a class; the image of class c and number k is ``smooth_image(100 * c + k)``."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for k in range(count):
            (root / name / f"{k:03}.png").write_bytes(encoded(smooth_image(100 * c + k)))
    return root


def idx_file(path: Path, values: np.ndarray) -> None:
    data = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
