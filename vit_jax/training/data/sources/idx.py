"""The files of MNIST and its family: images and labels as plain arrays after a short header."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from conversion.containers.file_checks import check_size, open_regular
from vit_jax.training.data.record import Record, Split
from vit_jax.training.data.sources.labels import numbered
from vit_spec import VitportError

_FILE = re.compile(r"(?P<part>.*train|.*t10k|.*test)-(?P<what>images|labels)[-.]idx\d-ubyte(\.gz)?")
_PARTS = {"train": ("train",), "validation": ("t10k", "test")}


@dataclass(frozen=True, eq=False)
class Idx:
    """A pair of files; pickles hold only paths and labels, and each worker reads the images on demand."""

    path: Path
    classes: tuple[str, ...]
    labels: np.ndarray

    @property
    def name(self) -> str:
        """The path of the image file."""
        return str(self.path)

    @cached_property
    def images(self) -> np.ndarray:
        """uint8 (n, H, W)."""
        return _read(self.path, 3)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "images"}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int, /) -> Record:
        return Record(f"{self.name}[{at}]", int(self.labels[at]), self.images[at][..., None])


def is_idx(name: str) -> bool:
    """Whether a file has such a name."""
    return _FILE.fullmatch(name) is not None


def open_idx(root: Path, split: Split, classes: tuple[str, ...] | None) -> Idx | None:
    """``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same of ``t10k``, optionally with ``.gz``.

    Raises:
        VitportError: for files that are missing, damaged or do not match.
    """
    files = _files(root)
    if not any(part == split for part, _ in files):
        return None
    for what in ("images", "labels"):
        if (split, what) not in files:
            raise VitportError(f"{root} has no {what} file of the {split} split: put it beside the others.")
    labels, classes = numbered(_read(files[split, "labels"], 1), classes, str(files[split, "labels"]))
    source = Idx(files[split, "images"], classes, labels)
    if 0 in source.images.shape[1:]:
        raise VitportError(f"{source.name} has images without pixels, {source.images.shape}: download it again.")
    if len(source.images) != len(labels):
        raise VitportError(
            f"{source.name} has {len(source.images)} images, and its label file {len(labels)} labels: give files that "
            "belong together."
        )
    return source


def _files(root: Path) -> dict[tuple[str, str], Path]:
    """(split, images or labels) → file."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(root.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        split = next(split for split, ends in _PARTS.items() if match["part"].endswith(ends))
        other = found.setdefault((split, match["what"]), path)
        if other.with_suffix("") != path and other != path:
            raise VitportError(f"{root} has both {other.name} and {path.name}: remove one of them.")
    return found


def _read(path: Path, dimensions: int) -> np.ndarray:
    """Two zeros, 8 for bytes, the number of dimensions, each size as a big-endian uint32, then the values."""
    head = 4 + 4 * dimensions
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            unpacked = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            data = unpacked.read(head)
            shape = np.frombuffer(data[4:], ">u4", count=len(data) // 4 - 1).tolist() if len(data) == head else []
            claimed = math.prod(shape)
            if data[:4] != bytes([0, 0, 8, dimensions]) or len(shape) < dimensions:
                raise _unlike_idx(path, dimensions)
            check_size(path, claimed, size)
            values = unpacked.read(claimed + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise VitportError(f"{path} cannot be read ({error}): download it again.") from error
    if len(values) < claimed:
        raise _unlike_idx(path, dimensions)
    if len(values) > claimed:
        raise VitportError(f"{path} holds more bytes than the {claimed} that its head states: download it again.")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _unlike_idx(path: Path, dimensions: int) -> VitportError:
    return VitportError(
        f"{path} is not an IDX file of {dimensions}-dimensional bytes, or is truncated: download it again."
    )
