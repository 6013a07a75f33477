"""Where the chunks of an ArrayRecord file lie, and what they claim, before the library unpacks them.

The library takes the memory that a chunk's head claims, which can be any number: 200 kB of it unpack to 2 GiB. The file
is one of Riegeli (github.com/google/riegeli, doc/riegeli_records_file_format.md): blocks of 64 KiB, whose own heads
interrupt the chunks; a chunk has a head of five numbers. The last block names the place of a chunk that lists the
others: offset, unpacked bytes, records.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from conversion.containers.file_checks import check_size, open_regular
from vit_jax.training.data.sources.protobuf import fields, varint
from vit_spec import VitportError

_BLOCK, _BLOCK_HEAD, _HEAD = 1 << 16, 24, 40
_KINDS = (ord("r"), ord("t"))
"""Of chunks that hold records: one after the other, or transposed."""
_RECORD = 16
"""Bytes that the library keeps of each record's place."""
_CODECS = {ord("b"): "brotli", ord("z"): "zstd", ord("s"): "snappy"}


@dataclass(frozen=True, eq=False)
class Chunks:
    """Those of one file that hold records."""

    file: str
    begins: np.ndarray
    """int64: where each begins."""
    group: int
    """Records in each but the last."""

    def check(self, record: int) -> None:
        """
        Raises:
            VitportError: if the chunk of a record claims to unpack to more than an image's can.
        """
        with open_regular(Path(self.file)) as file:
            _head(file, self.file, int(self.begins[record // self.group]), os.fstat(file.fileno()).st_size)


def find_chunks(path: Path) -> Chunks:
    """
    Raises:
        VitportError: if a chunk that is read for it claims to unpack to too much, or pyarrow is missing to unpack it.
        ValueError: if the file is damaged.
    """
    with open_regular(path) as file:
        entries, _ = _listed(file, str(path), os.fstat(file.fileno()).st_size)
    counts = {entry.get(3) for entry in entries[:-1]} or {entry.get(3) for entry in entries}
    group = next(iter(counts), 1)
    if len(counts) > 1 or not isinstance(group, int) or group < 1:
        raise ValueError("its chunks hold different numbers of records")
    return Chunks(str(path), np.array([entry.get(1, -1) for entry in entries], np.int64), group)


def chunk_list(file: BinaryIO, size: int, name: str) -> list[tuple[int, int]]:
    """Where each chunk of records begins, and how many it holds; last, where the list begins, and the file's size.

    Raises:
        VitportError: as :func:`find_chunks` does.
        ValueError: if the file is damaged.
    """
    entries, end = _listed(file, name, size)
    found = [(entry.get(1, -1), entry.get(3, 0)) for entry in entries]
    if [0, *(begin for begin, _ in found), end] != sorted({0, end} | {begin for begin, _ in found}):
        raise ValueError("its list of chunks is not in order")
    if any(not isinstance(count, int) or count < 1 for _, count in found):
        raise ValueError("its list has a chunk without records")
    return [*found, (end, size)]


def check_chunk(file: BinaryIO, begin: int, size: int, name: str) -> None:
    """
    Args:
        size: bytes of the chunk.

    Raises:
        VitportError: if it claims to unpack to more than images can.
        ValueError: if it is damaged.
    """
    _head(file, name, begin, size)


def _listed(file: BinaryIO, name: str, size: int) -> tuple[list[dict[int, Any]], int]:
    """What the file's list says of each chunk, and where the list begins."""
    last = _records(file, name, size - _BLOCK, size)
    begin = dict(fields(last[-1])).get(1) if last else None
    if not isinstance(begin, int) or not 0 < begin < size:
        raise ValueError("its last block does not say where its list of chunks is")
    return [
        dict(fields(entry)) for entry in _records(file, name, begin, size)[1:]
    ], begin  # the first is about the file


class _Head(NamedTuple):
    begin: int
    """Of what follows it."""
    size: int
    records: int
    is_transposed: bool


def _head(file: BinaryIO, path: str, begin: int, most: int) -> _Head:
    """The head of a chunk, whose claims are checked."""
    head, place = _content(file, begin, _HEAD)
    _, size, _, counted, unpacked = struct.unpack("<5Q", head)
    records = counted >> 8
    if counted & 0xFF not in _KINDS:
        raise ValueError(f"at {begin} there is no chunk of records")
    if size > most:
        raise ValueError(f"its chunk at {begin} claims {size} bytes")
    check_size(f"A chunk of {path}", unpacked + _RECORD * records, size)
    return _Head(place, size, records, counted & 0xFF == _KINDS[1])


def _records(file: BinaryIO, path: str, begin: int, most: int) -> list[bytes]:
    """All records of a simple chunk: their sizes, and themselves, each part compressed or not."""
    head = _head(file, path, begin, most)
    if head.is_transposed:
        raise ValueError(f"its chunk at {begin} is transposed")
    data, _ = _content(file, head.begin, head.size)
    length, place = varint(data, 1)
    sizes = _unpacked(path, data[0], data[place : place + length])
    values = _unpacked(path, data[0], data[place + length :])
    found, at, begin = [], 0, 0
    for _ in range(head.records):
        size, at = varint(sizes, at)
        found.append(values[begin : begin + size])
        begin += size
    return found


def _unpacked(path: str, kind: int, data: bytes) -> bytes:
    if kind == 0:
        return data
    if kind not in _CODECS:
        raise ValueError(f"its compression is unknown ({kind})")
    try:
        import pyarrow
    except ImportError as error:
        raise VitportError(f"Reading {path} needs pyarrow: pip install 'vitport[parquet]'.") from error
    claimed, place = varint(data, 0)
    check_size(f"A chunk of {path}", claimed, len(data))
    return pyarrow.Codec(_CODECS[kind]).decompress(data[place:], claimed, asbytes=True)


def _content(file: BinaryIO, place: int, size: int) -> tuple[bytes, int]:
    """So many bytes without the heads of blocks, and the place behind them."""
    parts: list[bytes] = []
    while size > 0:
        place += _BLOCK_HEAD if place % _BLOCK == 0 else 0
        file.seek(place)
        part = file.read(min(size, _BLOCK - place % _BLOCK))
        if not part:
            raise ValueError("the file is truncated")
        parts.append(part)
        place += len(part)
        size -= len(part)
    return b"".join(parts), place
