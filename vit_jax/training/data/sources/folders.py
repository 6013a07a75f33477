"""Folders of image files, on this machine's disk or in a bucket: what is in them, and what reads it."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conversion.containers.file_checks import read_regular
from conversion.store import Objects
from vit_jax.training.data.sources.bucket import version_of
from vit_jax.training.data.sources.files import MOST_IMAGE, walk
from vit_jax.training.data.sources.kept import NOT_KEPT, Keep, Kept
from vit_jax.training.data.sources.ranges import AT_ONCE
from vit_spec import VitportError


class Files(Protocol):
    """Reads the files of a folder. Picklable and small, because every worker gets a copy."""

    @property
    def at_once(self) -> int:
        """Files that are best read at the same time."""
        ...

    def name(self, path: str) -> str:
        """The whole path or address of a file, for people."""
        ...

    def read(self, at: int, path: str) -> bytes:
        """The file of this number.

        Raises:
            VitportError: if it is no file of an image's size, or is gone.
            OSError: if it cannot be read.
        """
        ...


class Folder(Protocol):
    """What is in a folder. Its text is its path or address."""

    def folders(self) -> list[str]:
        """Names of the folders in it."""
        ...

    def files(self) -> list[str]:
        """Names of the files in it."""
        ...

    def walk(self) -> Iterator[str]:
        """Paths of all files below it, with slashes."""
        ...

    def below(self, name: str) -> Folder:
        """The folder of this name in it."""
        ...

    def reader(self, paths: Sequence[str], keep: Keep = NOT_KEPT) -> Files:
        """What reads these files, which are numbered in this order.

        Args:
            keep: where files of a bucket stay that were read.
        """
        ...


@dataclass(frozen=True)
class FolderOnDisk:
    """A folder on this machine's disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def folders(self) -> list[str]:
        """Links to folders count."""
        return [entry.name for entry in os.scandir(self.path) if entry.is_dir()]

    def files(self) -> list[str]:
        return [entry.name for entry in os.scandir(self.path) if not entry.is_dir()]

    def walk(self) -> Iterator[str]:
        for at, files in walk(self.path):
            below = Path(at).relative_to(self.path)
            yield from ((below / file).as_posix() for file in files)

    def below(self, name: str) -> FolderOnDisk:
        return FolderOnDisk(self.path / name)

    def reader(self, paths: Sequence[str], keep: Keep = NOT_KEPT) -> FilesOnDisk:
        del paths, keep
        return FilesOnDisk(str(self.path))


@dataclass(frozen=True)
class FilesOnDisk:
    """Reads files below a path."""

    root: str
    at_once: int = 1

    def name(self, path: str) -> str:
        return str(Path(self.root, path))

    def read(self, at: int, path: str) -> bytes:
        del at
        return read_regular(Path(self.root, path), MOST_IMAGE)


class FolderInBucket:
    """Objects whose names begin with an address and a slash.

    Args:
        names: theirs below it, sorted.
    """

    def __init__(self, address: str, names: Sequence[str]) -> None:
        self._address, self._names = address, names

    def __str__(self) -> str:
        return self._address

    def folders(self) -> list[str]:
        return sorted({name.partition("/")[0] for name in self._names if "/" in name})

    def files(self) -> list[str]:
        return [name for name in self._names if "/" not in name]

    def walk(self) -> Iterator[str]:
        return iter(self._names)

    def below(self, name: str) -> FolderInBucket:
        first, end = (bisect_left(self._names, f"{name}{after}") for after in ("/", chr(ord("/") + 1)))
        return FolderInBucket(f"{self._address}/{name}", [found[len(name) + 1 :] for found in self._names[first:end]])

    def reader(self, paths: Sequence[str], keep: Keep = NOT_KEPT) -> FilesInBucket:
        objects = Objects(self._address)
        kept = None if keep.folder is None else keep.of(version_of(objects, paths), len(paths))
        return FilesInBucket(objects, kept)


@dataclass(frozen=True, eq=False)
class FilesInBucket:
    """Reads objects, each by a request of its own."""

    objects: Objects
    kept: Kept | None
    """Objects that are on this machine's disk."""
    at_once: int = AT_ONCE

    def name(self, path: str) -> str:
        return f"{self.objects.address}/{path}"

    def read(self, at: int, path: str) -> bytes:
        data = None if self.kept is None else self.kept.read(at)
        if data is None:
            data = self.objects.read(path)
            if data is None:
                raise VitportError(f"{self.name(path)} was deleted: put it back, or run again.")
            if len(data) > MOST_IMAGE:
                raise VitportError(
                    f"{self.name(path)} has {len(data):,} bytes, and at most {MOST_IMAGE:,} are read: make it smaller."
                )
            if self.kept is not None:
                self.kept.add(at, data)
        return data
