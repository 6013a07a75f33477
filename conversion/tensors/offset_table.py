"""A table of relative position biases brought to another window, by the methods that published code uses.

Each method is a matrix along each axis of the grid of offsets, so it is the same numbers whichever framework the model
runs in.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from conversion.tensors.position_table import interpolation_matrix
from vit_spec import VitportError
from vit_spec.swin.resizing import OffsetResize


def resize_offset_table(
    table: np.ndarray, *, source: tuple[int, int], target: tuple[int, int], method: OffsetResize
) -> np.ndarray:
    """Resample the biases of relative positions for another window.

    The geometric methods take the old offsets for 0, ±1, ±(1 + q), ±(1 + q + q²), … of the new window, so near ones
    keep their meaning and far ones are stretched; beyond the last one its value is repeated. q lies between 1.01 and
    1.5, so for a smaller window the far offsets are cut off. timm interpolates in float32.

    Args:
        table: (offsets, heads), the offsets of the source window row by row, of any float dtype; the result has the
            same one. The arithmetic is in float64.
        source: height and width of the window that the table is for, in tokens.
        target: of the result's.
        method: see :data:`OffsetResize`.

    Returns:
        (offsets of the target, heads).

    Raises:
        VitportError: if the table is not the source's, the method is unknown, or a cubic spline has too few offsets.
    """
    if method not in get_args(OffsetResize):
        raise VitportError(f"No resize method is named {method!r}: choose one of {', '.join(get_args(OffsetResize))}.")
    (rows, columns), (new_rows, new_columns) = (
        tuple(2 * side - 1 for side in window) for window in (source, target)
    )  # fmt: skip
    if table.ndim != 2 or len(table) != rows * columns:
        raise VitportError(
            f"A table of shape {table.shape} does not fit a window of {source[0]}x{source[1]}: expected "
            f"({rows * columns}, heads)."
        )
    if source == target:
        return table
    down, across = _matrix(rows, new_rows, method), _matrix(columns, new_columns, method)
    grid = table.astype(np.float64).reshape(rows, columns, -1)
    return (
        np.einsum("ay,bx,yxh->abh", down, across, grid, optimize=True).reshape(-1, table.shape[1]).astype(table.dtype)
    )


def _matrix(source: int, target: int, method: OffsetResize) -> np.ndarray:
    """Weights (target, source) along one axis of offsets."""
    if method == "torch-bicubic":
        return interpolation_matrix(source, target, "torch-bicubic")
    positions = _geometric(source, target)
    wanted = np.clip(np.arange(target) - target // 2, positions[0], positions[-1])
    if method == "timm-geometric":
        return np.stack([np.interp(wanted, positions, unit) for unit in np.eye(source)], axis=1)
    if source < 4:
        raise VitportError(
            f"geometric-cubic needs at least 4 offsets along each axis, but a window of {(source + 1) // 2} has "
            f"{source}: choose another method (--resize)."
        )
    from scipy.interpolate import make_interp_spline

    return make_interp_spline(positions, np.eye(source), k=3)(wanted)


def _geometric(source: int, target: int) -> np.ndarray:
    """Where the new window has the old offsets: bisection as in BEiT's code, which the others copied."""
    count, largest = source // 2, target // 2
    low, high, ratio = 1.01, 1.5, 1.255
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**count) / (1 - ratio) > largest:
            high = ratio
        else:
            low = ratio
    steps = np.cumsum([ratio**step for step in range(count)])
    return np.concatenate([-steps[::-1], [0.0], steps])
