"""Uncompressed zip archives, written from start to end.

The standard library's writer returns to each member's header, and uses zlib's slower CRC-32. The layout is that of
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT; members always have the extended (zip64) fields.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from conversion.containers.crc32 import crc32
from conversion.containers.output import Output

_NEEDS, _UTF_8, _DATE = 45, 1 << 11, 0x21
"""Version 4.5 for zip64; names in UTF-8; the first day of 1980, so that equal weights make equal files."""
_LARGE = 0xFFFFFFFF
"""In a 32-bit field: the number is in the extended fields."""


@dataclass(frozen=True)
class _Member:
    name: bytes
    checksum: int
    size: int
    at: int


class StoredZip:
    """An archive that is written to an :class:`Output`."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._members: list[_Member] = []

    def add(self, name: str, parts: Sequence[bytes | memoryview], *, alignment: int = 1) -> None:
        """Write a member of these parts, its content beginning at a multiple of ``alignment`` bytes."""
        checksum, size = 0, 0
        for part in parts:
            checksum = crc32(part, checksum)
            size += memoryview(part).nbytes
        member = _Member(name.encode(), checksum, size, self._output.position)
        extra = struct.pack("<HHQQ", 1, 16, size, size)
        if alignment > 1:
            extra += _padding(member.at + 30 + len(member.name) + len(extra), alignment)
        header = struct.pack(
            "<4s5HIIIHH", b"PK\3\4", _NEEDS, _UTF_8, 0, 0, _DATE, checksum, _LARGE, _LARGE, len(member.name), len(extra)
        )
        self._output.write(header + member.name + extra)
        for part in parts:
            self._output.write(part)
        self._members.append(member)

    def finish(self) -> None:
        """Write the index."""
        start = self._output.position
        for member in self._members:
            extra = struct.pack("<HHQQQ", 1, 24, member.size, member.size, member.at)
            self._output.write(
                struct.pack(
                    "<4s6HIIIHHHHHII", b"PK\1\2", _NEEDS, _NEEDS, _UTF_8, 0, 0, _DATE, member.checksum, _LARGE, _LARGE,
                    len(member.name), len(extra), 0, 0, 0, 0, _LARGE,
                ) + member.name + extra
            )  # fmt: skip
        end = self._output.position
        count = len(self._members)
        self._output.write(
            struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, _NEEDS, _NEEDS, 0, 0, count, count, end - start, start)
            + struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
            + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _LARGE, _LARGE, 0)
        )


def _padding(at: int, alignment: int) -> bytes:
    """An extended field that readers skip, of the length that aligns what follows."""
    count = -(at + 4) % alignment
    return struct.pack("<HH", 0x4246, count) + b"\0" * count
