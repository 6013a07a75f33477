"""Biases by relative position among all patches and a class token (BEiT, Bao et al. 2022, and its code)."""

from __future__ import annotations

import math
from functools import lru_cache

CLASS_ROWS = 3
"""Rows at the end of a table: from class token to patches, from patches to class token, from class token to itself."""


def count_offsets(grid: tuple[int, int], class_token: bool = True) -> int:
    """Rows of the table."""
    rows, columns = grid
    return (2 * rows - 1) * (2 * columns - 1) + (CLASS_ROWS if class_token else 0)


def shares(grid: tuple[int, int]) -> tuple[int, ...]:
    """Each patch's part in the number of a table's row: for query a and key b it is ``s[a] - s[b] + s[-1]``."""
    rows, columns = grid
    return tuple(row * (2 * columns - 1) + column for row in range(rows) for column in range(columns))


@lru_cache(maxsize=16)
def log_offsets(grid: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """What a network computes biases from: ``sign(o) ln(1 + |o|)`` of each offset by row and by column, (offsets, 2).

    The offsets are those of a table's rows, in their order. timm's ``gen_relative_log_coords`` in its mode ``cr``; Swin
    version 2 (Liu et al. 2022, section 3.3) divides offsets by the largest one first.
    """
    rows, columns = (
        [math.copysign(math.log1p(abs(offset)), offset) for offset in range(1 - side, side)] for side in grid
    )
    return tuple((row, column) for row in rows for column in columns)
