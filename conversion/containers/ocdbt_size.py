"""How much an OCDBT database may unpack to, found before TensorStore unpacks it.

Chunks of arrays need no such look: TensorStore unpacks them to as many bytes as they must have, and no further.
Manifests and nodes unpack to whatever their zstd frames hold, and a block of 4 bytes can hold 128 KiB.

Formats: https://google.github.io/tensorstore/kvstore/ocdbt (Storage format), and RFC 8878 for zstd.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from conversion.containers.file_checks import open_regular

_MAGICS = (b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde", b"\x0c\xdb\x12\x34")
"""First bytes of a manifest, a B-tree node and a version tree node."""
_FRAME = b"\x28\xb5\x2f\xfd"
"""First bytes of a zstd frame."""
_BETWEEN = 32
"""The frame begins within so many bytes: those of a length, a version and a method, the last two as varints."""
_BLOCK = 1 << 17
"""Bytes that a block unpacks to, at most."""
_READ = 1 << 22


def unpacked_bytes(files: Iterable[Path], enough: int) -> int:
    """Bytes to which all manifests and nodes in the files unpack, at most.

    What looks like a node within a chunk of weights counts as well; by chance, eight bytes do not.

    Args:
        files: of the database.
        enough: counting ends beyond this.
    """
    total = 0
    for path in files:
        with open_regular(path) as file:
            for place in _frames(file):
                total += _unpacked(file, place, enough - total)
                if total > enough:
                    return total
    return total


def _frames(file: BinaryIO) -> Iterator[int]:
    """Where the zstd frames of manifests and nodes begin."""
    start = 0
    while True:
        file.seek(start)
        held = file.read(_READ)
        at = held.find(_FRAME)
        while at >= 0:
            if any(magic in held[max(0, at - _BETWEEN) : at] for magic in _MAGICS):
                yield start + at
            at = held.find(_FRAME, at + 1)
        if len(held) < _READ:
            return
        start += _READ - _BETWEEN - len(_FRAME)


def _unpacked(file: BinaryIO, at: int, enough: int) -> int:
    """Bytes to which the blocks of the frame unpack, at most; it may itself claim less."""
    file.seek(at + len(_FRAME))
    descriptor = file.read(1)[0]
    alone = descriptor >> 5 & 1
    at += len(_FRAME) + 2 - alone + (0, 1, 2, 4)[descriptor & 3] + (alone, 2, 4, 8)[descriptor >> 6]
    total, last = 0, 0
    while not last and total <= enough:
        file.seek(at)
        head = int.from_bytes(file.read(3), "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        if not head or kind == 3:  # the end of the file, or no block: TensorStore refuses it
            break
        total += _BLOCK if kind == 2 else min(size, _BLOCK)
        at += 3 + (1 if kind == 1 else size)
    return total
