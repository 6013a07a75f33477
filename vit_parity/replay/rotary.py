"""Rotary positions, as a model has them or as they may have been computed.

Deviations that :class:`vit_parity.replay.ReplayedModel` may name: ``unturned``, ``other pairs``, ``mixed pairs``,
``other order``, ``other way``, ``prefix turned``, ``coarse table``; and of DINOv3's coordinates ``corners``,
``from 0 to 1``, ``by longer side``, ``by shorter side``, ``without 2 pi``.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from vit_parity.replay.common import Replay
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary

_OTHER = {"halves": "neighbours", "neighbours": "halves"}


def turned(r: Replay, x: np.ndarray, frequencies: np.ndarray | None) -> np.ndarray:
    """Queries or keys, (B, h, N, d) -> (B, h, N, d), with the block's learned frequencies, if it has any."""
    c, deviations = r.config, r.model.deviations
    if c.rotary is None or "unturned" in deviations:
        return x
    angles = _angles(r, frequencies)  # (h, patches, d / 2) or without heads
    first = angles[..., : c.num_prefix_tokens, :] if "prefix turned" in deviations else 0.0
    prefix = np.zeros((*angles.shape[:-2], c.num_prefix_tokens, angles.shape[-1])) + first
    angles = np.concatenate([prefix, angles], axis=-2) * (-1 if "other way" in deviations else 1)
    pairs = _OTHER[c.rotary.pairs] if "other pairs" in deviations else c.rotary.pairs
    table = np.repeat(angles, 2, axis=-1) if pairs == "neighbours" else np.concatenate([angles, angles], axis=-1)
    partner = _partner(x, _OTHER[pairs] if "mixed pairs" in deviations else pairs)
    cos, sin = np.cos(table), np.sin(table)
    if "coarse table" in deviations:
        cos, sin = (part.astype(ml_dtypes.bfloat16).astype(float) for part in (cos, sin))
    return x * cos + partner * sin


def _partner(x: np.ndarray, pairs: str) -> np.ndarray:
    """What the sine multiplies: for a pair (a, b), -b in the place of a and a in that of b."""
    if pairs == "halves":
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([-b, a], axis=-1)
    return np.stack([-x[..., 1::2], x[..., ::2]], axis=-1).reshape(x.shape)


def _angles(r: Replay, frequencies: np.ndarray | None) -> np.ndarray:
    """Of the patches, row by row: (patches, d / 2), or (h, patches, d / 2) where heads have their own."""
    c, deviations = r.config, r.model.deviations
    rows, columns = c.grid_size
    row, column = np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)
    if isinstance(c.rotary, MixedRotary):
        assert frequencies is not None
        across, down = frequencies[:, :, None]  # (h, 1, d / 2) each
        across, down = (down, across) if "other order" in deviations else (across, down)
        return column[:, None] * across + row[:, None] * down
    by_row, by_column = (
        _along(place, length, at, r) for at, (place, length) in enumerate(((row, rows), (column, columns)))
    )
    first = (c.rotary.order == "hw") == ("other order" not in deviations)
    return np.concatenate([by_row, by_column] if first else [by_column, by_row], axis=-1)


def _along(place: np.ndarray, length: int, axis: int, r: Replay) -> np.ndarray:
    """The angles of one axis: (patches, d / 4)."""
    rotary: DinoV3Rotary | AxialRotary = r.config.rotary
    deviations, share = r.model.deviations, np.arange(r.config.head_dim // 4) / (r.config.head_dim // 4)
    if isinstance(rotary, AxialRotary):
        grid = r.config.grid_size if rotary.reference_grid is None else rotary.reference_grid
        return np.outer((place + rotary.offset) * grid[axis] / length, rotary.theta**-share)
    for word, side in (("by longer side", max), ("by shorter side", min)):
        length = side(r.config.grid_size) if word in deviations else length
    place = (place + (0.0 if "corners" in deviations else 0.5)) / length
    place = place if "from 0 to 1" in deviations else 2 * place - 1
    turn = 1.0 if "without 2 pi" in deviations else 2 * np.pi
    return np.outer(turn * place, 1 / (rotary.theta**share if rotary.periods is None else np.array(rotary.periods)))
