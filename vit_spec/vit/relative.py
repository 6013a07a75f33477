"""Biases by relative position among all patches and a class token (BEiT, Bao et al. 2022, and its code)."""

from __future__ import annotations

CLASS_ROWS = 3
"""Rows at the end of a table: from class token to patches, from patches to class token, from class token to itself."""


def count_offsets(grid: tuple[int, int]) -> int:
    """Rows of the table."""
    rows, columns = grid
    return (2 * rows - 1) * (2 * columns - 1) + CLASS_ROWS


def shares(grid: tuple[int, int]) -> tuple[int, ...]:
    """Each patch's part in the number of a table's row: for query a and key b it is ``s[a] - s[b] + s[-1]``."""
    rows, columns = grid
    return tuple(row * (2 * columns - 1) + column for row in range(rows) for column in range(columns))
