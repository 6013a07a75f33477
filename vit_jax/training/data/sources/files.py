"""Files of a data set that strangers made: regular ones, of a size that fits in memory, each folder visited once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vit_spec import VitportError

MOST_IMAGE = 1 << 29
"""Bytes of an image file: 89 million pixels, the most that are decoded, take 357 MB without compression."""
MOST_TEXT = 1 << 24
"""Bytes of a file of names, or of facts about an image."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, unless it is a pipe, which would be waited for, or a device, which may never end.

    Raises:
        VitportError: if it is not a regular file.
        OSError: if it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(handle, "rb", closefd=True) if stat.S_ISREG(os.fstat(handle).st_mode) else None
    if file is None:
        os.close(handle)
        raise VitportError(f"{path} is not a regular file: remove it.")
    return file


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file.

    Args:
        most: bytes that are read.

    Raises:
        VitportError: if it is not a regular file, or larger.
        OSError: if it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise VitportError(
                f"{path} has {size:,} bytes, and at most {most:,} are read: remove it, or make it smaller."
            )
        return file.read(most)


def walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below, with the names of its files; links are followed, but lead to no folder twice."""
    seen: set[tuple[int, int]] = set()
    for at, folders, files in os.walk(folder, followlinks=True):
        found = os.stat(at)  # noqa: PTH116, because os.walk gives text
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        yield at, files
