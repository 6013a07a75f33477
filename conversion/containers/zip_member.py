"""Where the content of an uncompressed zip member lies in the file, and its checksum."""

from __future__ import annotations

import zipfile
from pathlib import Path

from conversion.containers.crc32 import crc32

_CHUNK = 1 << 19
"""Bytes that are checked at a time."""


def content_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Bytes from the beginning of the file to the member's content, after its name and extra field."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    name, extra = (int.from_bytes(lengths[at : at + 2], "little") for at in (0, 2))
    return info.header_offset + 30 + name + extra


def checked_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """As :func:`content_offset`, once the member's checksum has been verified.

    Raises:
        ValueError: if the checksum differs.
    """
    offset, checksum, left = content_offset(path, info), 0, info.file_size
    with path.open("rb") as file:
        file.seek(offset)
        while left and (chunk := file.read(min(left, _CHUNK))):
            checksum, left = crc32(chunk, checksum), left - len(chunk)
    if left or checksum != info.CRC:
        raise ValueError("its checksum differs")
    return offset
