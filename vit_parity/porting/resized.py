"""Maps resized by other rules: nearest, bilinear, bicubic; half pixels or corners; with or without antialiasing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from vit_parity.bound import relative

Told = tuple[str, np.ndarray]
_AGREES = 1e-6


def resized(x: np.ndarray, y: np.ndarray) -> Iterator[Told]:
    """Other ways to resize (B, C, H, W), where one of them is A's."""
    if x.ndim != 4 or y.ndim != 4 or x.shape[:2] != y.shape[:2] or x.shape == y.shape:
        return
    ways = {
        " ".join(filter(None, (method, grid, smooth))): _applied(x, y, method, grid, smooth)
        for method, grid, smooth in itertools.product(
            ("by the nearest pixel", "bilinear", "bicubic (a = -0.75)", "bicubic (a = -0.5)"),
            ("", "with aligned corners", "without half pixels"),
            ("", "with antialiasing"),
        )
    }  # fmt: skip
    own = [name for name, value in ways.items() if relative(value, y) < _AGREES]
    for name, value in ways.items():
        if own and name not in own:
            yield f"resizes {name}, not {own[0]}", value


def _applied(x: np.ndarray, y: np.ndarray, method: str, grid: str, smooth: str) -> np.ndarray:
    down, across = (_matrix(x.shape[axis], y.shape[axis], method, grid, smooth) for axis in (2, 3))
    return np.einsum("ih,bchw,jw->bcij", down, x, across, optimize=True)


def _matrix(given: int, made: int, method: str, grid: str, smooth: str) -> np.ndarray:
    """(made, given) weights."""
    at = np.arange(made)
    scale = given / made
    if grid == "with aligned corners":
        places = at * (given - 1) / max(made - 1, 1)
    elif grid == "without half pixels":
        places = at * scale
    else:
        places = (at + 0.5) * scale - 0.5
    matrix = np.zeros((made, given))
    if method == "by the nearest pixel":
        nearest = np.floor(places + 0.5) if grid != "without half pixels" else np.floor(places)
        matrix[at, np.clip(nearest.astype(int), 0, given - 1)] = 1
        return matrix
    wide = max(scale, 1.0) if smooth else 1.0
    reach = int(np.ceil((1 if method == "bilinear" else 2) * wide)) + 1
    for row, place in enumerate(places):
        taps = np.arange(int(np.floor(place)) - reach, int(np.floor(place)) + reach + 1)
        weights = _kernel((taps - place) / wide, method)
        inside = (taps >= 0) & (taps < given)
        if smooth or method == "bicubic (a = -0.5)":  # JAX and PIL leave out what is beyond the edge
            weights = np.where(inside, weights, 0)
        np.add.at(matrix[row], np.clip(taps, 0, given - 1), weights / weights.sum())
    return matrix


def _kernel(x: np.ndarray, method: str) -> np.ndarray:
    x = np.abs(x)
    if method == "bilinear":
        return np.maximum(0, 1 - x)
    a = -0.75 if "0.75" in method else -0.5
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    return np.where(x <= 1, near, np.where(x < 2, a * (x**3 - 5 * x**2 + 8 * x - 4), 0))
