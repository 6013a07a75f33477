"""What the buffers of an Arrow stream claim to unpack to, before pyarrow allocates it.

``datasets`` writes none of them compressed; where a stranger's are, each begins with the number of its unpacked bytes,
which pyarrow believes. The places are in the message's flatbuffer (arrow.apache.org/docs/format/Columnar.html).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from conversion.containers.file_checks import check_size

_DICTIONARIES, _ROWS = 2, 3
"""Kinds of messages that have buffers."""


def check_claims(path: str) -> None:
    """
    Raises:
        VitportError: if compressed buffers claim to unpack to more than a data set's can.
        ValueError: if a message is damaged.
    """
    import pyarrow

    claimed = 0
    for message in pyarrow.ipc.MessageReader.open_stream(pyarrow.memory_map(path)):
        if message.body is not None:
            claimed += _claimed(message.metadata.to_pybytes(), message.body)
    check_size(path, claimed, Path(path).stat().st_size)


def _claimed(head: bytes, body: Any) -> int:
    message = _Table(head, struct.unpack_from("<I", head, 0)[0])
    kind, batch = message.byte(1), message.table(2)
    if kind == _DICTIONARIES and batch is not None:
        batch = batch.table(1)
    if kind not in (_DICTIONARIES, _ROWS) or batch is None or batch.place(3) is None:
        return 0  # a schema, or nothing is compressed
    return sum(
        max(0, struct.unpack("<q", body.slice(begin, 8).to_pybytes())[0])
        for begin, size in batch.places(2)
        if size >= 8
    )


class _Table:
    """A table in a flatbuffer: its fields by their numbers."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._int("<i", at)

    def place(self, field: int) -> int | None:
        """Where a field lies; ``None`` if it is left out."""
        slot = 4 + 2 * field
        if slot >= self._int("<H", self._fields):
            return None
        return self._at + offset if (offset := self._int("<H", self._fields + slot)) else None

    def byte(self, field: int) -> int:
        at = self.place(field)
        return 0 if at is None else self._int("<B", at)

    def table(self, field: int) -> _Table | None:
        at = self.place(field)
        return None if at is None else _Table(self._data, at + self._int("<I", at))

    def places(self, field: int) -> list[tuple[int, int]]:
        """A vector of offsets and lengths."""
        at = self.place(field)
        if at is None:
            return []
        begin = at + self._int("<I", at)
        return list(struct.iter_unpack("<qq", self._data[begin + 4 : begin + 4 + 16 * self._int("<I", begin)]))

    def _int(self, kind: str, at: int) -> int:
        try:
            return struct.unpack_from(kind, self._data, at)[0]
        except struct.error as error:
            raise ValueError("a message is damaged") from error
