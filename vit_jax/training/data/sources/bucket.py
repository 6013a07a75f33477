"""Data sets in a bucket: tar shards are read in place, by ranges; other files are copied to this machine."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, cast

from conversion.store import Objects, StoreError
from conversion.store.fetch import cache, copy, new_folder
from vit_jax.training.data.sources.labels import LISTS, listed_classes
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

    def copied(self) -> Path:
        """The copy on this machine, made once for each version of the objects."""
        goal = cache("data") / version_of(self.objects, self.names)
        if not goal.exists():
            with new_folder(goal) as folder:
                copy(self.objects, self.names, folder)
        return goal if self.is_folder else goal / self.names[0]


def indexed(
    bucket: Objects, names: Sequence[str], index: Callable[[BinaryIO, int, str], Sequence[tuple[Any, ...]]]
) -> tuple[list[list[tuple[Any, ...]]], str]:
    """What ``index`` finds in each object, many at a time; what it found of a version is kept on this machine.

    Also 32 hexadecimal digits that other objects, or other versions of these, do not have.

    Args:
        index: takes the object as a file, its size and its name.
    """
    versions = versions_of(bucket, names)

    def of(it: tuple[str, str]) -> list[tuple[Any, ...]]:
        name, version = it
        kept = cache("indices") / f"{version}.json"
        if kept.is_file():
            return [tuple(entry) for entry in json.loads(kept.read_text())]
        size = size_of(bucket, name)
        file = cast(BinaryIO, io.BufferedReader(RangesOf(bucket, name, size), _BLOCK))
        found = list(index(file, size, f"{bucket.address}/{name}"))
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_suffix(f".{hashlib.sha256(name.encode()).hexdigest()[:8]}.part")
        aside.write_text(json.dumps(found))
        aside.replace(kept)
        return found

    with ThreadPoolExecutor(min(SHARDS, len(names))) as pool:
        found = list(pool.map(of, zip(names, versions, strict=True)))
    return found, _digest(versions)


def version_of(objects: Objects, names: Sequence[str]) -> str:
    """32 hexadecimal digits that other objects, or other versions of these, do not have."""
    return _digest(versions_of(objects, names))


def versions_of(objects: Objects, names: Sequence[str]) -> list[str]:
    """For each object 32 hexadecimal digits that no other object, and no other version of it, has."""
    found = objects.versions(names)
    return [_digest([objects.address, name, str(version)]) for name, version in zip(names, found, strict=True)]


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
        found = next(self._objects.read_all([(self._name, slice(self._at, end))])) or b""
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


def size_of(objects: Objects, name: str) -> int:
    """The bytes of an object, which tensorstore does not tell: by looking where its last one is."""

    def holds(at: int) -> bool:
        try:
            return next(objects.read_all([(name, slice(at, at + 1))])) is not None
        except StoreError as error:
            if "OUT_OF_RANGE" in str(error) or "416" in str(error):
                return False
            raise

    low, high = 0, 1 << 16  # bytes that are there, and that may not be
    while holds(high - 1):
        low, high = high, high * 4
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle - 1) else (low, middle)
    return low


def _patterns(path: str) -> list[str]:
    match = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if match is None:
        return [path]
    first, last = match.groups()
    rest = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    return [it for number in rest for it in _patterns(path[: match.start()] + number + path[match.end() :])]


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]
