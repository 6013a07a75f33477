"""Flax's msgpack, walked from start to end without reading the arrays: it has no index, but every length comes first.

https://github.com/msgpack/msgpack/blob/master/spec.md. An array is an extension that holds (shape, dtype, bytes); a
large array is a map of such chunks.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from conversion.containers.file_checks import unique
from conversion.identify.quantised import quantised
from conversion.tensors.table import BFLOAT16

_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_LENGTHS = {
    0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2,
    0xDF: 4,
}  # fmt: skip
"""Code → how many bytes the length after it has."""
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_DTYPES = {
    name: np.dtype(name)
    for name in (
        "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
        "bool", "complex64", "complex128",
    )
} | {"bfloat16": BFLOAT16}  # fmt: skip
"""What flax writes as an array's dtype: numpy's own name, in little-endian order."""
_ARRAY = 1
_CHUNKED = "__msgpack_chunked_array__"
_LONGEST_AXIS = 1 << 40
_MOST_VALUES = 500_000
"""Keys, numbers, arrays and maps that are walked, each in a microsecond or two."""


@dataclass(frozen=True)
class Stored:
    """An array, and where its values are in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    places: tuple[tuple[int, int], ...]
    """Offset and bytes of each chunk."""


def walk(file: BinaryIO) -> Any:
    """The tree of a file: maps as dicts, arrays as :class:`Stored`, scalars as they are, lists empty.

    Raises:
        ValueError: if the file is not one complete msgpack value, or a key occurs twice.
    """
    walker = _Walker(file)
    tree = walker.value()
    if walker.left():
        raise ValueError(f"{walker.left()} bytes follow its end")
    return tree


class _Walker:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._values = 0

    def left(self) -> int:
        return self._size - self._file.tell()

    def value(self) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values, which no tree of arrays does")
        code = self._take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return struct.unpack(_NUMBERS[code], self._take(struct.calcsize(_NUMBERS[code])))[0]
        kind, length = self._length(code)
        if kind == "map":
            return self._map(length)
        if kind == "list":
            for _ in range(length):
                self.value()
            return []
        if kind == "text":
            return self._take(length).decode()
        if kind == "extension" and self._take(1)[0] == _ARRAY:
            return self._array(length)
        self._skip(length)
        return None

    def _length(self, code: int) -> tuple[str, int]:
        """What kind of value a code begins, and its length."""
        if code in _FIXED_EXTENSIONS:
            return "extension", _FIXED_EXTENSIONS[code]
        if code < 0xC0:
            kind = "map" if code < 0x90 else "list" if code < 0xA0 else "text"
            return kind, code & (0x1F if kind == "text" else 0x0F)
        if code not in _LENGTHS:
            raise ValueError(f"the byte {code:#x} begins nothing")
        kind = "bytes" if code < 0xC7 else "extension" if code < 0xCA else "text" if code < 0xDC else "list"
        return "map" if code >= 0xDE else kind, int.from_bytes(self._take(_LENGTHS[code]), "big")

    def _map(self, count: int) -> Any:
        tree = unique([(self.value(), self.value()) for _ in range(count)])
        return _joined(tree) if _CHUNKED in tree else tree

    def _array(self, length: int) -> Stored:
        end = self._file.tell() + length
        if self._take(1) != b"\x93":
            raise ValueError("an array in it is not stored as shape, dtype and bytes")
        kind, rank = self._length(self._take(1)[0])
        if kind != "list" or rank > 64:
            raise ValueError("an array in it has no shape")
        shape, dtype = tuple(self.value() for _ in range(rank)), _dtype(self.value())
        kind, count = self._length(self._take(1)[0])
        at = self._file.tell()
        if kind not in ("bytes", "text") or at + count != end or not _fits(shape, dtype, count):
            raise ValueError(f"an array in it says it is {shape} of {dtype}, but has {count} bytes")
        self._skip(count)
        return Stored(shape, dtype, ((at, count),))

    def _take(self, count: int) -> bytes:
        content = self._file.read(count) if count <= self.left() else b""
        if len(content) < count:
            raise ValueError("it ends too early")
        return content

    def _skip(self, count: int) -> None:
        if count > self.left():
            raise ValueError("it ends too early")
        self._file.seek(count, os.SEEK_CUR)


def _joined(tree: dict[str, Any]) -> Stored:
    """The array whose chunks a map holds; shape and chunks are maps keyed by position."""
    shape, chunks = ([tree[part][str(at)] for at in range(len(tree[part]))] for part in ("shape", "chunks"))
    dtypes = {chunk.dtype for chunk in chunks}
    places = tuple(place for chunk in chunks for place in chunk.places)
    if len(dtypes) != 1 or not _fits(tuple(shape), chunks[0].dtype, sum(count for _, count in places)):
        raise ValueError(f"the chunks of an array in it do not make {tuple(shape)}")
    return Stored(tuple(shape), chunks[0].dtype, places)


def _dtype(name: Any) -> np.dtype:
    if name in _DTYPES:
        return _DTYPES[name]
    if str(name).startswith(("float8", "float4", "float6", "int4", "uint4", "int2", "uint2")):
        raise quantised("an array in it", str(name))
    raise ValueError(f"an array in it is of {name!r}, which is not a type of number")


def _fits(shape: tuple[Any, ...], dtype: np.dtype, count: int) -> bool:
    return all(isinstance(axis, int) and 0 <= axis < _LONGEST_AXIS for axis in shape) and (
        math.prod(shape) * dtype.itemsize == count
    )
