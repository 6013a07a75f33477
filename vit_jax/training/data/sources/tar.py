"""Tar shards in webdataset's layout: ``key.jpg`` beside ``key.cls`` or ``key.json``."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from conversion.containers.file_checks import open_regular
from conversion.store import Objects
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.bucket import digest, indexed
from vit_jax.training.data.sources.files import MOST_IMAGE, MOST_TEXT
from vit_jax.training.data.sources.image_folder import SUFFIXES
from vit_jax.training.data.sources.kept import Keep
from vit_jax.training.data.sources.labels import numbered
from vit_jax.training.data.sources.names import Names
from vit_jax.training.data.sources.ranges import Ranges
from vit_spec import VitportError

_END = 1024
_LONGEST = 4096
"""Bytes of a ``.cls``: a number or a name."""
_KEYS = ("label", "cls")
"""Keys of the label in a ``.json``."""


@dataclass(frozen=True, eq=False)
class TarShards:
    """Images by shard, offset and length, in the order of the shards."""

    name: str
    classes: tuple[str, ...]
    shards: tuple[str, ...]
    names: Names
    shard: np.ndarray
    """int32 (n,): index of the shard."""
    place: np.ndarray
    """int64 (n, 2): offset of the image in its shard, and its length, in bytes."""
    labels: np.ndarray
    ranges: Ranges | None = None
    """What reads the shards of a bucket."""

    @property
    def at_once(self) -> int:
        """Images that are best read at the same time."""
        return 1 if self.ranges is None else self.ranges.at_once

    def __len__(self) -> int:
        return len(self.labels)

    def about(self, at: int) -> tuple[str, int]:
        """An image's name and label."""
        return f"{self.shards[int(self.shard[at])]}/{self.names[at]}", int(self.labels[at])

    def __getitem__(self, at: int, /) -> Record:
        number = int(self.shard[at])
        shard = self.shards[number]
        begin, size = self.place[at].tolist()
        if self.ranges is not None:
            data = self.ranges.read(at, number, begin, size)
        else:
            with open_regular(Path(shard)) as file:
                file.seek(begin)
                data = file.read(size)
        return Record(*self.about(at), data)


class _Image(NamedTuple):
    name: str
    begin: int
    size: int
    label: str


def open_tar(name: str, files: Sequence[Path], classes: tuple[str, ...] | None) -> TarShards:
    """Reads the headers of all members once.

    Raises:
        VitportError: for a shard that is damaged or compressed as a whole, an image without a label, or a label without
            an image.
    """
    images, shard = [], []
    for number, file in enumerate(files):
        with open_regular(file) as raw:
            found = _index(raw, os.fstat(raw.fileno()).st_size, str(file))
        images += found
        shard += [number] * len(found)
    return _shards(name, classes, [str(file) for file in files], images, shard)


def open_tar_in_bucket(
    name: str, objects: Objects, files: Sequence[str], classes: tuple[str, ...] | None, keep: Keep
) -> TarShards:
    """The same for objects, whose headers are read once for each version; raises as :func:`open_tar` does.

    Args:
        keep: where images stay that were read.
    """
    read, versions = indexed(objects, files, _index, "members")
    found = [[_Image(*it) for it in each] for each in read]
    images = [image for each in found for image in each]
    shard = [number for number, each in enumerate(found) for _ in each]
    ends = [max((image.begin + image.size for image in each), default=0) for each in found]
    kept = keep.of(digest(versions), len(images))
    return _shards(name, classes, files, images, shard, Ranges(objects, files, ends, kept))


def _shards(
    name: str,
    classes: tuple[str, ...] | None,
    files: Sequence[str],
    images: Sequence[_Image],
    shard: Sequence[int],
    ranges: Ranges | None = None,
) -> TarShards:
    labels, classes = numbered([image.label for image in images], classes, name)
    return TarShards(
        name,
        classes,
        tuple(files),
        Names.of(image.name for image in images),
        np.array(shard, np.int32),
        np.array([(image.begin, image.size) for image in images], np.int64).reshape(-1, 2),
        labels,
        ranges,
    )


def _index(raw: BinaryIO, size: int, file: str) -> list[_Image]:
    """The images of a shard of so many bytes."""
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with _Bounded(raw, size) as bounded, tarfile.open(fileobj=bounded, mode="r:") as tar:
            _check_end(bounded)
            before = -1
            for member in tar:
                if member.offset <= before or member.size < 0 or member.issparse():
                    raise tarfile.ReadError(f"its member {member.name} has holes, or a size that cannot be")
                before = member.offset
                folder, _, base = member.name.rpartition("/")
                key, dot, suffix = base.partition(".")
                if not member.isfile() or not key:
                    continue
                key, suffix = f"{folder}/{key}", f"{dot}{suffix}".lower()
                if suffix in SUFFIXES:
                    if member.size > MOST_IMAGE or member.offset_data + member.size > bounded.size:
                        raise tarfile.ReadError(f"its member {member.name} claims {member.size} bytes")
                    if key in images:
                        raise VitportError(f"{file} has two images with the key {key.lstrip('/')}: keep one.")
                    images[key] = (member.name, member.offset_data, member.size)
                elif suffix == ".cls" or (suffix == ".json" and key not in labels):
                    label = _label(tar, member, suffix, f"{file}/{member.name}")
                    if label is not None:
                        labels[key] = label
    except VitportError:
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise VitportError(
            f"{file} cannot be read as a tar file ({error}): unpack .gz, or download it again."
        ) from error
    for one, other, what in ((images, labels, "label"), (labels, images, "image")):
        alone = next((key for key in one if key not in other), None)
        if alone is not None:
            raise VitportError(
                f"{file} has no {what} for the key {alone.lstrip('/')}: give each key a .jpg and a .cls."
            )
    return [_Image(*place, labels[key]) for key, place in images.items()]


def _check_end(shard: _Bounded) -> None:
    """A tar file that is truncated between two members lacks only the two empty blocks at its end."""
    place = shard.tell()
    shard.seek(-min(_END, shard.size), 2)
    if any(shard.read(_END)):
        raise tarfile.ReadError("it is truncated")
    shard.seek(place)


class _Bounded(io.BufferedReader):
    """Reads no more than there is: ``read(n)`` takes n bytes of memory first, and a member's head may claim any n."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file)  # type: ignore[arg-type]
        self.size = size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, name: str) -> str | None:
    """The text of a ``.cls``, or the value of a label key of a ``.json``, if it has one."""
    most = _LONGEST if suffix == ".cls" else MOST_TEXT
    if member.size > most:
        raise VitportError(f"{name} has {member.size:,} bytes, and at most {most:,} are read: write the label into it.")
    file = tar.extractfile(member)
    data = file.read() if file else b""
    try:
        if suffix == ".cls":
            return data.decode().strip()
        entries = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VitportError(f"{name} cannot be read ({error}): write the label into it.") from error
    found = [entries[key] for key in _KEYS if isinstance(entries, dict) and key in entries]
    if found and (not isinstance(found[0], str | int) or isinstance(found[0], bool)):
        raise VitportError(f"{name} has a {type(found[0]).__name__} as its label: give a number or a name.")
    return str(found[0]) if found else None
