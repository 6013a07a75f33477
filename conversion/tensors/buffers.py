"""Memory that is reused for one tensor after another while a file is written.

A freed array returns its pages to the system, which clears new pages for the next one: a fifth of a conversion's time.
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
"""Sizes are rounded up to a multiple of this many bytes; smaller arrays are not worth reusing."""
_LARGE_PAGE = 1 << 21
_MOST = 32 << 20
"""The most bytes to hold unused."""


class _Lease:
    """Holds memory for the arrays that view it; numpy drops it with the last one."""

    def __init__(self, memory: np.ndarray) -> None:
        self._memory = memory
        self.__array_interface__: dict[str, Any] = memory.__array_interface__

    def __del__(self) -> None:
        _give_back(self._memory)


_lock = threading.Lock()
_users = 0
_spare: dict[int, list[np.ndarray]] = {}
"""Size → unused pieces of memory. Append and pop of its lists are thread-safe."""


@contextmanager
def kept() -> Iterator[None]:
    """Within this context :func:`empty` reuses memory; the last context to end frees it."""
    global _users  # noqa: PLW0603 - memory belongs to the process
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
    """As ``numpy.empty``; within :func:`kept`, in memory that was used before if there is some."""
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
    """``count`` bytes of new memory, aligned to a page, in large pages where the system has them."""
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
