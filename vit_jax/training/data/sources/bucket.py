"""Data sets in a bucket: what lies there, read by ranges where it is, or copied to this machine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, cast

from conversion.store import Objects
from conversion.store.fetch import cache, copy, new_folder
from vit_jax.training.data.sources.labels import LISTS, listed_classes
from vit_jax.training.data.sources.ranges import read_ranges
from vit_spec import VitportError

_BLOCK = 1 << 20
"""Bytes that are read at a time for an index: of images of usual sizes, a header lies in most blocks."""
SHARDS = 32
"""Shards whose headers are read at the same time."""


class Bucket:
    """What lies at an address: a folder, or a file or pattern of files, as :func:`expanded` takes it.

    Args:
        path: the address, with ``*``, ``?`` or a range such as ``{000..127}`` in the names of files.
    """

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        patterns = _patterns(self.path)
        plain = re.split(r"[*?\[{]", self.path)[0]
        above = plain.rpartition("/")[0]
        inside = [] if plain != self.path else Objects(self.path).names()
        self.is_folder = bool(inside)
        self.objects = Objects(self.path) if inside else Objects(above)
        names = inside or [
            name for name in self.objects.names() if any(fnmatchcase(f"{above}/{name}", it) for it in patterns)
        ]
        self.names = sorted(name for name in names if not name.endswith("/"))
        if not self.names:
            raise VitportError(f"{path} does not exist: give the address of a data set, or of its files.")

    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, if there is a list of them."""
        with new_folder(cache("data") / "-") as folder:
            copy(self.objects, [name for name in self.objects.names("") if name in LISTS], folder)
            return listed_classes(folder)

    def copied(self, most: int) -> Path:
        """The copy on this machine, made once for each version of the objects.

        Raises:
            VitportError: if it would have more than so many bytes.
        """
        goal = copied(self.objects, self.names, most)
        return goal if self.is_folder else goal / self.names[0]


def copied(objects: Objects, names: Sequence[str], most: int) -> Path:
    """A folder with copies of objects, made once for each version of them.

    Raises:
        VitportError: if they have more than so many bytes.
    """
    goal = cache("data") / version_of(objects, names)
    if not goal.exists():
        with new_folder(goal) as folder:
            copy(objects, names, folder, most)
    return goal


def indexed(
    bucket: Objects, names: Sequence[str], index: Callable[[BinaryIO, int, str], Sequence[tuple[Any, ...]]], of: str
) -> tuple[list[list[tuple[Any, ...]]], list[str]]:
    """What ``index`` finds in each object, many at a time; what it found of a version is kept on this machine.

    Also the version of each, as :func:`versions_of` has it.

    Args:
        index: takes the object as a file, its size and its name.
        of: what it finds, as part of a file's name.
    """
    versions = versions_of(bucket, names)

    def found_in(it: tuple[str, str]) -> list[tuple[Any, ...]]:
        name, version = it
        kept = cache("indices") / f"{version}.{of}.json"

        def write(aside: Path) -> None:
            size = bucket.size(name)
            file = cast(BinaryIO, io.BufferedReader(RangesOf(bucket, name, size), _BLOCK))
            aside.write_text(json.dumps(list(index(file, size, f"{bucket.address}/{name}"))))

        return [tuple(entry) for entry in json.loads(made_once(kept, write).read_text())]

    with ThreadPoolExecutor(min(SHARDS, len(names))) as pool:
        found = list(pool.map(found_in, zip(names, versions, strict=True)))
    return found, versions


def made_once(goal: Path, write: Callable[[Path], object]) -> Path:
    """The file, which ``write`` makes where it is not there yet. Of several that make it at once the last one stays."""
    if not goal.is_file():
        goal.parent.mkdir(parents=True, exist_ok=True)
        aside = goal.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        write(aside)
        aside.replace(goal)
    return goal


def version_of(objects: Objects, names: Sequence[str]) -> str:
    """32 hexadecimal digits that other objects, or other versions of these, do not have."""
    return digest(versions_of(objects, names))


def versions_of(objects: Objects, names: Sequence[str]) -> list[str]:
    """For each object 32 hexadecimal digits that no other object, and no other version of it, has."""
    found = objects.versions(names)
    return [digest([objects.address, name, str(version)]) for name, version in zip(names, found, strict=True)]


class _Seekable(io.RawIOBase):
    """A file of known length that is read from any place in it."""

    def __init__(self, end: int) -> None:
        self._at, self._end = 0, end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, to: int, whence: int = 0, /) -> int:
        self._at = to + (0, self._at, self._end)[whence]
        return self._at


class RangesOf(_Seekable):
    """An object as a file, read by ranges."""

    def __init__(self, objects: Objects, name: str, size: int) -> None:
        super().__init__(size)
        self._objects, self._name = objects, name

    def readinto(self, into: memoryview, /) -> int:  # type: ignore[override]
        end = min(self._at + len(into), self._end)
        if end <= self._at:
            return 0
        (found,) = read_ranges(self._objects, [(self._name, slice(self._at, end))])
        into[: len(found)] = found
        self._at += len(found)
        return len(found)


class Parts(_Seekable):
    """A file of which only some parts are there, by where they begin; readers may read over what is between them."""

    def __init__(self, parts: dict[int, bytes]) -> None:
        super().__init__(max((begin + len(part) for begin, part in parts.items()), default=0))
        self._parts = dict(sorted(parts.items()))

    def readinto(self, into: memoryview, /) -> int:  # type: ignore[override]
        begin, end = self._at, min(self._at + len(into), self._end)
        if end <= begin:
            return 0
        into[: end - begin] = bytes(end - begin)
        for start, part in self._parts.items():
            first, last = max(begin, start), min(end, start + len(part))
            if first < last:
                into[first - begin : last - begin] = part[first - start : last - start]
        self._at = end
        return end - begin


def _patterns(path: str) -> list[str]:
    match = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if match is None:
        return [path]
    first, last = match.groups()
    rest = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    return [it for number in rest for it in _patterns(path[: match.start()] + number + path[match.end() :])]


def digest(values: object) -> str:
    """32 hexadecimal digits of what JSON can hold."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]
