"""The demo's image: a photograph beside the principal components of its patch features, as colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

PANEL = 336
"""Side of a panel, pixels."""
_MARGIN, _TITLE, _CAPTION = 20, 34, 24


def principal_components(features: np.ndarray, count: int = 3) -> np.ndarray:
    """Coordinates of each row along the directions of largest variance.

    A direction's sign is arbitrary; here its largest entry is positive, so that features which differ by rounding get
    the same colours.

    Args:
        features: (N, D).

    Returns:
        (N, count), float64; columns of zeros where there are fewer directions than ``count``.
    """
    centred = features.astype(np.float64) - features.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)  # (min(N, D), D)
    directions = directions[:count]
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    coordinates = centred @ (directions * signs[:, None]).T
    return np.pad(coordinates, ((0, 0), (0, count - coordinates.shape[1])))


def feature_colours(features: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Patch features (N, D) → colours (rows, columns, 3), uint8: red, green and blue are the first three components.

    Each is stretched over the range that holds 98 % of the patches.
    """
    components = principal_components(features)
    low, high = np.percentile(components, (1, 99), axis=0)
    scaled = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    return (scaled * 255).round().astype(np.uint8).reshape(*grid, 3)


def draw(photograph: np.ndarray, panels: Mapping[str, np.ndarray], captions: Sequence[str]) -> Image:
    """The photograph and the panels side by side, each under its title.

    Args:
        photograph: (H, W, 3) or (H, W, 1), uint8.
        panels: title → colours (rows, columns, 3), uint8; enlarged so that every patch is one square.
        captions: lines below.
    """
    from PIL import Image, ImageDraw, ImageFont

    shown = {"Input": np.broadcast_to(photograph, (*photograph.shape[:2], 3)), **panels}
    width = _MARGIN + len(shown) * (PANEL + _MARGIN)
    canvas = Image.new("RGB", (width, _MARGIN + _TITLE + PANEL + len(captions) * _CAPTION + _MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    for at, (title, panel) in enumerate(shown.items()):
        left = _MARGIN + at * (PANEL + _MARGIN)
        pen.text((left, _MARGIN), title, fill="#202020", font=ImageFont.load_default(20))
        smooth = panel.shape[0] >= PANEL // 2
        enlarged = Image.fromarray(np.ascontiguousarray(panel)).resize(
            (PANEL, PANEL), Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        )
        canvas.paste(enlarged, (left, _MARGIN + _TITLE))
    for at, caption in enumerate(captions):
        top = _MARGIN + _TITLE + PANEL + 10 + at * _CAPTION
        pen.text((_MARGIN, top), caption, fill="#505050", font=ImageFont.load_default(15))
    return canvas
