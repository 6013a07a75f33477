"""Memory that one tensor after another lies in while a file is written.

An array that is freed goes back to the system, which clears every page of the next: a fifth of a conversion's work.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_UNIT = 1 << 16
"""Bytes that sizes are rounded up to; smaller arrays are not worth the trouble."""
_LARGE_PAGE = 1 << 21
_MOST = 32 << 20
"""Bytes that lie waiting at most."""


class _Lease:
    """Holds a piece of memory for the arrays that view it; numpy drops it with the last of them."""

    def __init__(self, memory: np.ndarray) -> None:
        self._memory = memory
        self.__array_interface__: dict[str, Any] = memory.__array_interface__

    def __del__(self) -> None:
        _give_back(self._memory)


_lock = threading.Lock()
_users = 0
_spare: dict[int, list[np.ndarray]] = {}
"""Size → pieces of memory that nobody views. Its lists are safe from several threads by themselves."""


@contextmanager
def kept() -> Iterator[None]:
    """Keep what :func:`empty` gave for its next call, until all who asked for it have left."""
    global _users  # noqa: PLW0603 - memory is the process's
    with _lock:
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _spare.clear()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """As ``numpy.empty``, in memory that was used before where there is such and :func:`kept` allows it."""
    count = math.prod(shape) * dtype.itemsize
    if not _users or count < _UNIT:
        return np.empty(shape, dtype)
    size = -(-count // _UNIT) * _UNIT
    try:
        memory = _spare[size].pop()
    except LookupError:
        memory = pages(size)
    return np.asarray(_Lease(memory))[:count].view(dtype).reshape(shape)


def pages(count: int) -> np.ndarray:
    """New memory of so many bytes that begins with a page, in large pages where the system has them."""
    # Windows has no flags: memory without a file is private there already.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, count, **private)
    if count >= _LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _give_back(memory: np.ndarray) -> None:
    waiting = sum(size * len(pieces) for size, pieces in list(_spare.items()))
    if _users and waiting + memory.nbytes <= _MOST:
        _spare.setdefault(memory.nbytes, []).append(memory)
