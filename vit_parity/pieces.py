"""Element-wise work over large arrays: piece by piece, so that what it needs stays in a cache, and in several threads.

One numpy operation over an attention matrix of 100 MB reads and writes memory and takes one thread. Over pieces, a
dozen operations read each number once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np

PIECE = 1 << 15
"""Elements; a dozen arrays of them in float64 fill the cache of one core."""
T = TypeVar("T")


def over(function: Callable[..., T], *arrays: np.ndarray) -> list[T]:
    """What a function gives for the pieces of arrays of one size, in order; nothing for empty arrays.

    Args:
        function: of one piece of each array, 1-D; it may run in any thread, and must not call :func:`over`.
        arrays: of any shapes, contiguous or not.
    """
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    size = flat[0].size
    if size <= PIECE:
        return [function(*flat)] if size else []
    return list(_pool().map(lambda at: function(*(array[at : at + PIECE] for array in flat)), range(0, size, PIECE)))


def by_rows(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """A function of float64 arrays (..., D) that treats every row alone, such as a softmax, over pieces of the rows."""
    rows = x.reshape(-1, x.shape[-1])
    step = max(1, PIECE // max(1, x.shape[-1]))
    if len(rows) <= step:
        return function(x)
    out = np.empty(rows.shape)

    def fill(at: int) -> None:
        out[at : at + step] = function(rows[at : at + step])

    list(_pool().map(fill, range(0, len(rows), step)))
    return out.reshape(x.shape)


class Blur:
    """Moves numbers by a random share of at most ``u``, each by its own, from a generator of a fixed seed.

    The numbers are those of ``numpy.random.default_rng(0)``, one after the other through all calls. Its bit generator
    can skip ahead, so several threads draw them.
    """

    def __init__(self, u: float) -> None:
        self._u, self._drawn = u, 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """``x (1 + r)`` with r uniform from -u to u, float64."""
        return self.at(self.reserve(x.size), x)

    def reserve(self, count: int) -> int:
        """Pass over so many numbers; returns the place of the first."""
        self._drawn += count
        return self._drawn - count

    def at(self, begin: int, x: np.ndarray) -> np.ndarray:
        """The same with the numbers from a place on, each time that it is called."""
        flat = np.ascontiguousarray(x).reshape(-1)
        out = np.empty(flat.size)

        def fill(at: int) -> None:
            part = flat[at : at + PIECE]
            share = self._numbers(begin + at, part.size)
            share += 1.0
            np.multiply(part, share, out=out[at : at + PIECE])

        places = range(0, flat.size, PIECE)
        list(_pool().map(fill, places) if len(places) > 1 else map(fill, places))
        return out.reshape(x.shape)

    def _numbers(self, begin: int, count: int) -> np.ndarray:
        bits = np.random.PCG64(0)
        bits.advance(begin)
        return np.random.Generator(bits).uniform(-self._u, self._u, count)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="vit_parity")
