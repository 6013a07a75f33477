"""The same numbers in other axes: NCHW and NHWC, heads split or joined, maps and tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vit_parity.bound import relative

_MOST_AXES = 5
"""Arrays of more axes are compared as they lie."""
_INFINITE = 1e30


@dataclass(frozen=True)
class Layout:
    """How B's array is made of A's: ``a.transpose(axes).reshape(shape)``."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def to_b(self, a: np.ndarray) -> np.ndarray:
        """A's array in B's axes."""
        return a.transpose(self.axes).reshape(self.shape)

    def to_a(self, b: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """B's array in A's axes and shape."""
        moved = b.reshape([shape[axis] for axis in self.axes])
        return moved.transpose(np.argsort(self.axes)) if self.axes else moved

    @property
    def plain(self) -> bool:
        """Whether the axes stay where they are."""
        return self.axes == tuple(range(len(self.axes)))


def layouts(a: tuple[int, ...], b: tuple[int, ...]) -> Iterator[Layout]:
    """Every way to lay an array of shape ``a`` out as ``b``, fewest moved axes first."""
    if math.prod(a) != math.prod(b):
        return
    axes = tuple(range(len(a)))
    orders = itertools.permutations(axes) if len(a) <= _MOST_AXES else [axes]
    moved = sorted(orders, key=lambda order: sum(at != axis for at, axis in enumerate(order)))
    seen: set[tuple[int, ...]] = set()
    for order in moved:
        turned = tuple(a[axis] for axis in order)
        wide = tuple(axis for axis in order if a[axis] > 1)  # axes of length 1 move nothing
        if wide not in seen and (turned == b or _joined(turned, b)):
            seen.add(wide)
            yield Layout(order, b)


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[Layout, float] | None:
    """The layout that brings A's array closest to B's, and the relative distance; ``None`` if no shape fits."""
    found = [(layout, apart(layout.to_b(a), b)) for layout in layouts(a.shape, b.shape)]
    return min(found, key=lambda entry: entry[1]) if found else None


def apart(y: np.ndarray, x: np.ndarray) -> float:
    """Relative L2 distance of ``y`` from ``x``; all that is as good as infinite, as in masks, is one number."""
    wide = (np.clip(array.astype(np.float64), -_INFINITE, _INFINITE) for array in (y, x))
    return relative(*wide)


def _joined(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether one shape comes of the other by joining neighbouring axes."""
    fine, coarse = sorted(([size for size in shape if size > 1] for shape in (a, b)), key=len, reverse=True)
    for size in coarse:
        product = 1
        while product < size and fine:
            product *= fine.pop(0)
        if product != size:
            return False
    return not fine
