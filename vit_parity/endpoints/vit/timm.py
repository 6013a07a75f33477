"""timm's ViTs, whose modules have the names that are used here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vit_parity.points import Point, points
from vit_spec import ViTConfig


def timm_points(config: ViTConfig) -> Sequence[Point]:
    """What is observed of timm's model."""
    return points(config)


def fitted(name: str, array: np.ndarray) -> np.ndarray:
    """In our shape: attention pooling has no token axis here, and its query is the same for every image."""
    if name == "attn_pool.q":
        return array[:1]
    single = name.startswith("attn_pool.") and name != "attn_pool.kv"
    return array[:, 0] if single and array.ndim == 3 else array
