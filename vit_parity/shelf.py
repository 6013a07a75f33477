"""The activations of one stage: in memory as far as they may be, the rest in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping

import numpy as np

GIGABYTE = 10**9
_SMALL = 1 << 20
"""Bytes of an array that is not worth a file."""


class Shelf:
    """Where the arrays of one stage lie until all sides have given theirs.

    Half of the limit is for them; the other half is left to whatever computes the next, a side or the replay.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: float) -> None:
        self._free = limit / 2
        self._file = None

    def put(self, arrays: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The same arrays; those that do not fit are read from the file, piece by piece, where they are used."""
        return {name: self._put(arrays.pop(name)) for name in list(arrays)}

    def _put(self, array: np.ndarray) -> np.ndarray:
        if array.nbytes <= max(self._free, _SMALL):
            self._free -= array.nbytes
            return array
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives for as long as an array reads it
        begin = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        self._file.flush()
        kept = np.memmap(self._file, np.uint8, "r", begin, array.nbytes)
        return kept.view(array.dtype).reshape(array.shape).view(np.ndarray)
