"""A folder of class folders with image files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from conversion.containers.file_checks import read_regular
from vit_jax.training.data.record import Record, Split
from vit_jax.training.data.sources.files import MOST_IMAGE, walk
from vit_jax.training.data.sources.names import Names
from vit_spec import VitportError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif", ".avif")
"""Other files in a class folder are ignored: lists, annotations, thumbnail databases."""
_VALIDATION = ("val", "validation", "valid", "dev", "test", "testing")
"""The first of these that names a folder names that of the validation images."""
_TRAINING = ("train", "training")
_CLASSES_TOO = ("valid", "dev")
"""Words for a split that name classes as well: valid and invalid."""
_BESIDE_SPLITS = frozenset({"images", "image", "imgs", "img", "data", "set", "photos", "jpg", "jpeg", "png", "files"})
"""Words beside a split's in the name of its folder, as in ``train_images``."""


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images of class folders in the order of their paths."""

    name: str
    classes: tuple[str, ...]
    names: Names
    """Paths below the class folders."""
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int, /) -> Record:
        label = int(self.labels[at])
        path = Path(self.name, self.classes[label], self.names[at])
        return Record(str(path), label, read_regular(path, MOST_IMAGE))


def open_folder(root: Path, split: Split) -> ImageFolder | None:
    """``root`` holds class folders, or ``train`` of them, ``val``, ``validation``, ``valid`` or ``test``, or both.

    Raises:
        VitportError: if there are no class folders, one without an image, or splits in the place of classes.
    """
    parts = {entry.name: split_of(entry.name) for entry in os.scandir(root) if entry.is_dir()}
    training = sorted((name for name, found in parts.items() if found == "train"), key=len)
    held_out = sorted((name for name, found in parts.items() if found == "validation"), key=rank)
    others = len(parts) - len(training) - len(held_out)
    is_class = len(training) == 1 and others > 1 and not held_out  # of cars, buses and trains
    if not training or (is_class and not _has_folders(root / training[0])):
        if held_out and (not others or any(name.lower() not in _CLASSES_TOO for name in held_out)):
            if others or not _has_folders(root / held_out[0]):
                _refuse_splits(root, held_out)
            return None if split == "train" else _read(root / held_out[0])
        return None if split == "validation" else _read(root)
    if not _has_folders(root / training[0]) and (held_out or others or _tables(root)):
        _refuse_splits(root, [training[0], *held_out])
    if split == "train":
        return _read(root / training[0])
    return _read(root / held_out[0]) if held_out and _has_folders(root / held_out[0]) else None


def split_of(name: str) -> Split | None:
    """The split that a folder or a value is named after: ``train``, ``Test``, ``train_images``, ``val2017``."""
    words = {word for word in re.split(r"[^a-z]+", re.sub(r"(set|images)$", r" \1", name.lower())) if word}
    if not words - _BESIDE_SPLITS:
        return None
    (split, *others) = words - _BESIDE_SPLITS
    if others:
        return None
    return "train" if split in _TRAINING else "validation" if split in _VALIDATION else None


def split_word(name: str) -> str | None:
    """The first of the splits' names that is in a name."""
    return next((word for word in (*_TRAINING, *_VALIDATION) if word in name.lower()), None)


def rank(name: str) -> tuple[int, str]:
    """The order of preference among folders of validation images."""
    return next(at for at, word in enumerate(_VALIDATION) if word in name.lower()), name


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() and entry.name[0] != "." for entry in os.scandir(folder))


def _tables(root: Path) -> list[str]:
    """Names of the tables beside the images; of training images first."""
    found = [entry.name for entry in os.scandir(root) if entry.name.lower().endswith((".csv", ".tsv"))]
    return sorted(found, key=lambda name: ("train" not in name.lower(), "label" not in name.lower(), name))


def _refuse_splits(root: Path, names: list[str]) -> NoReturn:
    tables = _tables(root)
    told = " and ".join(f"{name}/" for name in names)
    remedy = (
        f"name the table of labels with --data.labels {tables[0]} (--labels of evaluate)"
        if tables
        else "put the images of each class into a folder of their own within them"
    )
    raise VitportError(f"{root} holds {told}, which are splits of a data set, not classes: {remedy}.")


def _read(root: Path) -> ImageFolder:
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."))
    if not classes:
        raise VitportError(f"{root} has no class folders: put the images of each class into a folder of their own.")
    names, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(_image_files(root / name))
        if not found:
            raise VitportError(f"{root / name} has no images: remove the folder, or add some.")
        names += found
        labels += [label] * len(found)
    return ImageFolder(str(root), classes, Names.of(names), np.array(labels, np.int32))


def _image_files(folder: Path) -> list[str]:
    """Paths relative to ``folder``, including those in subfolders."""
    return [
        os.path.relpath(Path(at, file), folder)
        for at, files in walk(folder)
        for file in files
        if file.lower().endswith(SUFFIXES) and not file.startswith(".")
    ]
