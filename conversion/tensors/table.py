"""Weights as a plain table, name → array, in which an array is read only when it is used."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from ml_dtypes import bfloat16

from vit_spec import VitportError

Shapes = Mapping[str, tuple[int, ...]]
"""Name → shape."""
BFLOAT16 = np.dtype(bfloat16)
_AHEAD = 1 << 27
"""The most bytes to hold of an array and those read ahead of it."""
_MOST_AHEAD = 2
"""Arrays to read ahead: two, because weights and small biases alternate in most files."""


@dataclass(frozen=True)
class Tensor:
    """One array that is not in memory yet: its shape, its dtype, and how to read it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    read_entry: Callable[[int], np.ndarray] | None = None
    """Reads one entry of axis 0, if that is possible without the rest."""


class TensorTable(Mapping[str, np.ndarray]):
    """A read-only mapping of names to numpy arrays that reads an array at each access.

    Nothing is kept, so converting a file holds one tensor in memory at a time. :meth:`spec` gives shape and dtype
    without reading.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> TensorTable:
        """A table over arrays in memory; a table is returned as it is."""
        if isinstance(arrays, cls):
            return arrays
        return cls({name: _in_memory(array) for name, array in arrays.items()})

    def spec(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of one tensor."""
        tensor = self.tensors[name]
        return tensor.shape, tensor.dtype

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def without(self, names: set[str]) -> TensorTable:
        """The table without some names."""
        return TensorTable({name: tensor for name, tensor in self.tensors.items() if name not in names})

    def replacing(self, name: str, array: np.ndarray) -> TensorTable:
        """The table with one array replaced, in the same position."""
        return TensorTable(self.tensors | {name: _in_memory(array)})

    def renamed(self, rename: Callable[[str], str]) -> TensorTable:
        """The table under other names.

        Raises:
            VitportError: if two tensors would get the same name.
        """
        sources: dict[str, str] = {}
        for name in self.tensors:
            if (first := sources.setdefault(rename(name), name)) != name:
                raise VitportError(f"{first} and {name} are both {rename(name)}: remove one of them from the file.")
        return TensorTable({rename(name): tensor for name, tensor in self.tensors.items()})

    def in_turn(self, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Names with their arrays, in order; while one is in use the next ones are read, unless they are large."""
        order = list(names)
        coming: deque[tuple[int, Future[np.ndarray]]] = deque()
        reader = ThreadPoolExecutor(1)
        try:
            for at, name in enumerate(order):
                array = coming.popleft()[1].result() if coming else self.tensors[name].read()
                held = self.nbytes(name) + sum(count for count, _ in coming)
                for following in order[at + 1 + len(coming) : at + 1 + _MOST_AHEAD]:
                    held += self.nbytes(following)
                    if held > _AHEAD:
                        break
                    coming.append((self.nbytes(following), reader.submit(self.tensors[following].read)))
                yield name, array
                del array
        finally:
            reader.shutdown(cancel_futures=True)

    def nbytes(self, name: str) -> int:
        """Bytes of one tensor, without reading it."""
        shape, dtype = self.spec(name)
        return math.prod(shape) * dtype.itemsize

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name].read()

    def __contains__(self, name: object) -> bool:
        return name in self.tensors  # Mapping's own would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def _in_memory(array: np.ndarray) -> Tensor:
    return Tensor(array.shape, array.dtype, lambda: array)
