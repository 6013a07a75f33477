"""Files of a data set that strangers made: of a size that fits in memory, each folder visited once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from conversion.containers.file_checks import read_regular
from conversion.store import Objects
from vit_spec import VitportError
from vit_spec.address import in_store

MOST_IMAGE = 1 << 29
"""Bytes of an image file: 89 million pixels, the most that are decoded, take 357 MB without compression."""
MOST_TEXT = 1 << 24
"""Bytes of a file of names, or of facts about an image."""


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


def read_text(path: str) -> bytes:
    """A file of text on this machine, or an object of a bucket.

    Raises:
        VitportError: if there is none, or it is too large.
        OSError: if it cannot be read.
    """
    if not in_store(path):
        return read_regular(Path(path), MOST_TEXT)
    objects, name = Objects.holding(path)
    content = objects.read(name)
    if content is None:
        raise VitportError(f"{path} does not exist: give the address of an object.")
    if len(content) > MOST_TEXT:
        raise VitportError(f"{path} has {len(content):,} bytes, and at most {MOST_TEXT:,} are read: make it smaller.")
    return content
