"""timm's Swin Transformers, whose modules have the names that are used here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vit_parity.points import Point, points
from vit_spec import SwinConfig


def timm_points(config: SwinConfig) -> Sequence[Point]:
    """What is observed of timm's model: its head pools too, so the layer behind is observed for what is pooled."""
    return [replace(it, module="head.fc") if it.name == "pooled" else it for it in points(config)]


def fitted(name: str, array: np.ndarray) -> np.ndarray:
    """In our shape: maps (B, rows, columns, D) are tokens here, row by row. Attention weights stay as they are."""
    scores = name.rpartition(".")[2] in ("scores", "biased", "masked", "softmax")
    return array if scores or array.ndim != 4 else array.reshape(len(array), -1, array.shape[-1])
