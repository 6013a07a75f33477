"""CRC-32, which every member of a zip archive carries."""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32  # eight times as fast as zlib on most machines
except ImportError:  # there is none for this kind of machine
    from zlib import crc32

__all__ = ["crc32"]
