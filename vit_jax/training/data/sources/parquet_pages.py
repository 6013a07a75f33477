"""What the pages of a Parquet file unpack to, before pyarrow allocates it.

The file's own index says so for each column, but pyarrow believes each page's head, which can say anything. Heads are
structs in Thrift's compact protocol (github.com/apache/parquet-format; thrift/doc/specs/thrift-compact-protocol.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

_LARGEST = 1 << 16
"""Bytes of a page's head, with the smallest and the largest value of its page."""
_DEEPEST = 8
_UNPACKED, _PACKED = 2, 3
"""Fields of a page's head: sizes."""
_FLAGS, _BYTE, _NUMBERS, _DOUBLE, _TEXT, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12


def unpacked_sizes(file: BinaryIO, metadata: Any, groups: Sequence[int], columns: Sequence[str]) -> list[int]:
    """Bytes of each column in each of some row groups, as the heads of its pages say.

    Args:
        metadata: pyarrow's, of the file.
        columns: paths in the schema, such as ``image.bytes``.

    Raises:
        ValueError: if a head is damaged.
    """
    return [_unpacked(file, place) for at in groups for place in chunks(metadata.row_group(at), columns)]


def chunks(group: Any, columns: Sequence[str]) -> list[slice]:
    """Where the bytes of some columns of a row group lie in its file."""
    found = []
    for chunk in (group.column(at) for at in range(group.num_columns)):
        begin = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < (dictionary := chunk.dictionary_page_offset or 0) < begin:
            begin = dictionary
        if chunk.path_in_schema in columns:
            found.append(slice(begin, begin + chunk.total_compressed_size))
    return found


def _unpacked(file: BinaryIO, place: slice) -> int:
    begin, end, total = place.start, place.stop, 0
    while begin < end:
        file.seek(begin)
        head = _Head(file.read(_LARGEST))
        fields = head.struct()
        unpacked, packed = fields.get(_UNPACKED, -1), fields.get(_PACKED, -1)
        if unpacked < 0 or packed < 0:
            raise ValueError(f"the page at {begin} has no size")
        total += unpacked
        begin += head.place + packed
    return total


class _Head:
    """Thrift's compact protocol, of which only the numbers of the outermost struct are kept."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        if depth > _DEEPEST:
            raise ValueError("a page's head nests too deeply")
        found: dict[int, int] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            value = self._value(head & 15, depth)
            if value is not None:
                found[number] = value
        return found

    def _value(self, kind: int, depth: int, *, listed: bool = False) -> int | None:
        if kind in _NUMBERS:
            return self._number()
        if kind in _FLAGS:
            self.place += listed  # elsewhere the kind is the value
        elif kind == _BYTE:
            self.place += 1
        elif kind == _DOUBLE:
            self.place += 8
        elif kind == _TEXT:
            size = self._varint()
            self.place += size
        elif kind in _LISTS:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if count > _LARGEST:
                raise ValueError("a page's head is too long")
            for _ in range(count):
                self._value(head & 15, depth + 1, listed=True)
        elif kind == _STRUCT:
            self.struct(depth + 1)
        else:
            raise ValueError(f"a page's head has a field of kind {kind}")
        return None

    def _byte(self) -> int:
        if self.place >= len(self._data):
            raise ValueError("a page's head is truncated")
        self.place += 1
        return self._data[self.place - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number is too long")

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)  # zigzag
