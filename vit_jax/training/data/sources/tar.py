"""Tar shards as webdataset lays them out: ``key.jpg`` beside ``key.cls`` or ``key.json``."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.image_folder import SUFFIXES
from vit_jax.training.data.sources.labels import numbered
from vit_jax.training.data.sources.names import Names
from vit_spec import VitportError

_END = 1024
_KEYS = ("label", "cls")
"""Where in a ``.json`` the label is."""


@dataclass(frozen=True, eq=False)
class TarShards:
    """Pictures by shard, place and length, in the order of the shards."""

    name: str
    classes: tuple[str, ...]
    shards: tuple[str, ...]
    names: Names
    shard: np.ndarray
    """int32 (n,): number of the shard."""
    place: np.ndarray
    """int64 (n, 2): where in it the picture begins, and how long it is, in bytes."""
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int, /) -> Record:
        shard = self.shards[self.shard[at]]
        begin, size = self.place[at].tolist()
        with Path(shard).open("rb") as file:
            file.seek(begin)
            data = file.read(size)
        return Record(f"{shard}/{self.names[at]}", int(self.labels[at]), data)


class _Picture(NamedTuple):
    name: str
    begin: int
    size: int
    label: str


def open_tar(name: str, files: Sequence[Path], classes: tuple[str, ...] | None) -> TarShards:
    """Reads the heads of all members once.

    Raises:
        VitportError: for a shard that is damaged or compressed as a whole, a picture without a label, a label without a
            picture.
    """
    pictures, shard = [], []
    for number, file in enumerate(files):
        found = _index(file)
        pictures += found
        shard += [number] * len(found)
    labels, classes = numbered([picture.label for picture in pictures], classes, name)
    return TarShards(
        name,
        classes,
        tuple(map(str, files)),
        Names.of(picture.name for picture in pictures),
        np.array(shard, np.int32),
        np.array([(picture.begin, picture.size) for picture in pictures], np.int64).reshape(-1, 2),
        labels,
    )


def _index(file: Path) -> list[_Picture]:
    pictures: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            _check_end(file)
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                key, dot, suffix = base.partition(".")
                if not member.isfile() or not key:
                    continue
                key, suffix = f"{folder}/{key}", f"{dot}{suffix}".lower()
                if suffix in SUFFIXES:
                    if key in pictures:
                        raise VitportError(f"{file} has two pictures of the key {key.lstrip('/')}: keep one.")
                    pictures[key] = (member.name, member.offset_data, member.size)
                elif suffix == ".cls" or (suffix == ".json" and key not in labels):
                    label = _label(tar, member, suffix, f"{file}/{member.name}")
                    if label is not None:
                        labels[key] = label
    except (tarfile.TarError, EOFError) as error:
        raise VitportError(
            f"{file} is no tar file that can be read ({error}): unpack .gz, or fetch it again."
        ) from error
    for one, other, what in ((pictures, labels, "label"), (labels, pictures, "picture")):
        alone = next((key for key in one if key not in other), None)
        if alone is not None:
            raise VitportError(f"{file} has no {what} for the key {alone.lstrip('/')}: put a .jpg and a .cls under it.")
    return [_Picture(*place, labels[key]) for key, place in pictures.items()]


def _check_end(file: Path) -> None:
    """A tar file that is cut off between two members looks whole but for the two empty blocks at its end."""
    with file.open("rb") as tail:
        tail.seek(-min(_END, file.stat().st_size), 2)
        if any(tail.read()):
            raise tarfile.ReadError("it is cut off")


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, name: str) -> str | None:
    """The text of a ``.cls``; of a ``.json`` what stands under a key for labels, if anything does."""
    file = tar.extractfile(member)
    data = file.read() if file else b""
    try:
        if suffix == ".cls":
            return data.decode().strip()
        entries = json.loads(data)
    except ValueError as error:
        raise VitportError(f"{name} cannot be read ({error}): write a label into it.") from error
    found = [entries[key] for key in _KEYS if isinstance(entries, dict) and key in entries]
    return str(found[0]) if found else None
