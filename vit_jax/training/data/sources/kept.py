"""Images of a bucket that a host keeps on its own disk, up to a number of bytes.

The first images that are read stay, since every epoch reads each image once: whatever made room for another would be
missed as soon. A folder holds a set of images for each version of a data set: ``images``, one after the other, and
``places``, where each lies, with its CRC-32. Threads, worker processes and other runs on the host share it. An image
counts only if its checksum is right, so nothing that a killed process, or a full disk, left half written is taken.
"""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.training.recipe.data import Data
from vit_spec import VitportError

_PLACE = np.dtype([("begin", "<u8"), ("size", "<u4"), ("sum", "<u4")])
"""Of an image; all zeros until it is there."""


_FOLDER = "vitport-images"
"""Within the folder that was given, where nothing else is."""
_SET = re.compile(r"[0-9a-f]{32}-\d+")


class Keep(NamedTuple):
    """Where images are kept, and how many bytes at most, those of other data sets included."""

    folder: str | None = None
    limit: int = Data.cache_limit
    """Also of one data set that is copied as a whole."""

    def of(self, version: str, count: int) -> Kept | None:
        """The images of one data set, where there is a folder for them; as :class:`Kept` takes them."""
        return None if self.folder is None else Kept(self.folder, self.limit, version, count)


NOT_KEPT = Keep()


class Kept:
    """The images of one data set. Picklable; every process opens the files again.

    Args:
        limit: most bytes, those of other data sets in the folder included.
        version: of the data set, as part of a file's name: images are never taken for those of another.
        count: its images.

    Raises:
        VitportError: if the folder cannot be written.
    """

    def __init__(self, folder: str, limit: int, version: str, count: int) -> None:
        self._folder, self._limit, self._version, self._count = folder, limit, version, count
        self._top = Path(folder) / _FOLDER
        self._set = self._top / f"{version}-{count}"
        self.full = False
        """Whether an image did not fit."""
        try:
            with self._alone():
                self._set.mkdir(exist_ok=True)
                if not (self._set / "places").exists():
                    aside = self._set / "places.part"
                    aside.write_bytes(bytes(count * _PLACE.itemsize))  # so that no later write meets a full disk
                    aside.replace(self._set / "places")
                # Held until the process ends, so that no other run removes what this one uses.
                self._images = os.fdopen(os.open(self._set / "images", os.O_RDWR | os.O_CREAT, 0o666), "r+b", 0)
                lock(self._images.fileno())
                os.utime(self._set)
            self._places: Any = np.memmap(self._set / "places", _PLACE, "r+", shape=(count,)) if count else None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VitportError(
                f"data.cache={folder} cannot be written ({reason}): choose a folder with free space."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder, "limit": self._limit, "version": self._version, "count": self._count}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)

    def read(self, at: int) -> bytes | None:
        """The image's bytes; ``None`` if it is not here."""
        begin, size, found = self._places[at].item()
        if not found:
            return None
        with suppress(OSError):
            data = os.pread(self._images.fileno(), size, begin)
            if _sum(data) == found:
                return data
        return None

    def add(self, at: int, data: bytes) -> None:
        """Keeps an image if there is room for it."""
        if self.full:
            return
        try:
            begin = self._taken(len(data))
            if begin is None or os.pwrite(self._images.fileno(), data, begin) != len(data):
                self.full = True
                return
        except OSError:  # the disk has less room than the limit
            self.full = True
            return
        place = self._places[at : at + 1]
        place["sum"] = 0
        place["begin"], place["size"] = begin, len(data)
        place["sum"] = _sum(data)

    def _taken(self, size: int) -> int | None:
        """Where so many bytes may be written, which are counted from now on; ``None`` if there is no room."""
        with self._alone():
            if not self._made_room(size):
                return None
            begin = _used(self._set)
            aside = self._set / "used.part"
            aside.write_text(str(begin + size))
            aside.replace(self._set / "used")
            return begin

    def _made_room(self, size: int) -> bool:
        """Removes sets that no process uses, the one that was opened longest ago first, as far as that is needed."""
        sets = sorted((it for it in self._top.iterdir() if _SET.fullmatch(it.name)), key=lambda it: it.stat().st_mtime)
        used = {path: _used(path) for path in sets}
        for path in sets:
            if sum(used.values()) + size <= self._limit:
                break
            if path != self._set and not _is_held(path):
                shutil.rmtree(path)
                del used[path]
        return sum(used.values()) + size <= self._limit

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process of the host changes the folder meanwhile."""
        self._top.mkdir(parents=True, exist_ok=True)
        with (self._top / "lock").open("a") as file:
            lock(file.fileno(), alone=True)
            yield


def _sum(data: bytes) -> int:
    return zlib.crc32(data) or 1


def _used(path: Path) -> int:
    with suppress(OSError, ValueError):
        return int((path / "used").read_text())
    return 0


def _is_held(path: Path) -> bool:
    try:
        with (path / "images").open("rb") as file:
            lock(file.fileno(), alone=True, wait=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def alone(goal: Path) -> Iterator[None]:
    """No other thread or process of this host makes the same file meanwhile."""
    goal.parent.mkdir(parents=True, exist_ok=True)
    beside = goal.with_suffix(".lock")
    with beside.open("a") as file:
        with suppress(VitportError):  # where files cannot be locked, two may make it, and the last one stays
            lock(file.fileno(), alone=True)
        try:
            yield
        finally:
            with suppress(OSError):
                beside.unlink()  # whoever waits for it finds the file made


def lock(file: int, *, alone: bool = False, wait: bool = True) -> None:
    """Until the file is closed; shared with others, or alone."""
    try:
        import fcntl
    except ImportError as error:  # on Windows
        raise VitportError(
            "Files cannot be locked on this system, so data.cache is not for it: leave it out."
        ) from error
    fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
