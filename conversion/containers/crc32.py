"""CRC-32, the checksum of zip archives."""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32  # eight times as fast as zlib on most machines
except ImportError:  # not built for this kind of machine
    from zlib import crc32

__all__ = ["crc32"]
