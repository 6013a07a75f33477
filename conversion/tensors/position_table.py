"""A position table brought to another grid, by the methods that published code uses.

Each method is a pair of interpolation matrices, one along each axis of the grid, so it is the same numbers whichever
framework the model runs in. Which method belongs to which weights: ``ViTConfig.pos_embed_resize``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vit_spec import VitportError
from vit_spec.vit.config import PositionResize


@dataclass(frozen=True)
class _Method:
    """How one axis is resampled.

    A target position ``t`` of ``n`` looks at the source position ``source(t, n, m)`` of ``m``; ``kernel`` weighs
    source positions by their distance from it, up to ``reach``, and those beyond the edge repeat the edge.
    """

    kernel: Callable[[np.ndarray], np.ndarray]
    reach: int
    source: Callable[[np.ndarray, int, int], np.ndarray]
    antialias: bool = False
    """Widen the kernel by the factor of shrinking, and renormalise instead of repeating the edge."""


def _half_pixel(target: np.ndarray, target_size: int, source_size: int) -> np.ndarray:
    return (target + 0.5) * source_size / target_size - 0.5


def _corners(target: np.ndarray, target_size: int, source_size: int) -> np.ndarray:
    return target * (source_size - 1) / max(target_size - 1, 1)


def _dino(target: np.ndarray, target_size: int, source_size: int) -> np.ndarray:
    """DINO passes ``scale_factor=(target + 0.1) / source``, and torch then divides by that factor."""
    return (target + 0.5) * source_size / (target_size + 0.1) - 0.5


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    """Keys' cubic convolution (1981): PyTorch takes a = -0.75, and -0.5 (as Pillow) when it antialiases."""

    def kernel(distance: np.ndarray) -> np.ndarray:
        x = np.abs(distance)
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    return kernel


_METHODS: dict[PositionResize, _Method] = {
    "torch-bicubic": _Method(_cubic(-0.75), 2, _half_pixel),
    "torch-bicubic-antialias": _Method(_cubic(-0.5), 2, _half_pixel, antialias=True),
    "torch-bilinear": _Method(_linear, 1, _half_pixel),
    "torch-bilinear-antialias": _Method(_linear, 1, _half_pixel, antialias=True),
    "torch-bicubic-corners": _Method(_cubic(-0.75), 2, _corners),
    "scipy-zoom": _Method(_linear, 1, _corners),
    "dinov2": _Method(_cubic(-0.75), 2, _dino),
}


def resize_position_table(
    table: np.ndarray,
    *,
    prefix: int,
    source_grid: tuple[int, int],
    target_grid: tuple[int, int],
    method: PositionResize,
) -> np.ndarray:
    """Resample the rows of a position table that belong to patches.

    Args:
        table: (1, prefix + h·w, D), of any float dtype; the result has the same one. The arithmetic is in float64.
        prefix: number of first rows that belong to no patch; they are copied.
        source_grid: rows and columns (h, w) of patches that the table is for.
        target_grid: rows and columns of patches of the result.
        method: named after the code it reproduces: ``torch.nn.functional.interpolate`` with its modes and options,
            ``scipy.ndimage.zoom(order=1)`` (Google's code), or DINO's ``interpolate_pos_encoding``. For some pairs of
            sides (8 to 26, 16 to 30, 24 to 22) scipy rounds its last coordinate past the edge and fills the last row
            and column with zeros; here they are the table's own, as with its ``mode="nearest"``.

    Returns:
        (1, prefix + target rows·columns, D).

    Raises:
        VitportError: if the table has another number of rows than its grid says, or the method is unknown.
    """
    if method not in _METHODS:
        raise VitportError(f"No resize method is named {method!r}: choose one of {', '.join(_METHODS)}.")
    rows, columns = source_grid
    if table.ndim != 3 or table.shape[:2] != (1, prefix + rows * columns):
        raise VitportError(
            f"A position table of shape {table.shape} does not fit {prefix} prefix rows and a {rows}x{columns} grid: "
            f"expected (1, {prefix + rows * columns}, width)."
        )
    if source_grid == target_grid:
        return table
    vertical = interpolation_matrix(rows, target_grid[0], method)  # (target h, h)
    horizontal = interpolation_matrix(columns, target_grid[1], method)  # (target w, w)
    grid = table[0, prefix:].astype(np.float64).reshape(rows, columns, -1)  # (h, w, D)
    grid = np.einsum("ah,bw,hwd->abd", vertical, horizontal, grid, optimize=True)
    grid = grid.reshape(1, -1, table.shape[2]).astype(table.dtype)
    return np.concatenate([table[:, :prefix], grid], axis=1)


def interpolation_matrix(source_size: int, target_size: int, name: PositionResize) -> np.ndarray:
    """Weights (target_size, source_size), float64, of the named method along one axis; every row sums to one."""
    method = _METHODS[name]
    centres = method.source(np.arange(target_size, dtype=np.float64), target_size, source_size)[:, None]
    if method.antialias:
        width = max(source_size / target_size, 1.0)
        weights = method.kernel((np.arange(source_size) - centres) / width)
        return weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((target_size, source_size))
    targets = np.arange(target_size)[:, None]
    first = np.floor(centres).astype(int) - method.reach + 1
    for position in (first + offset for offset in range(2 * method.reach)):
        matrix[targets, np.clip(position, 0, source_size - 1)] += method.kernel(position - centres)
    return matrix
