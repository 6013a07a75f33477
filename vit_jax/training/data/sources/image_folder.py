"""A folder of class folders with image files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from vit_jax.training.data.record import Record, Split
from vit_jax.training.data.sources.folders import Files, Folder
from vit_jax.training.data.sources.kept import NOT_KEPT, Keep
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
    files: Files

    @property
    def at_once(self) -> int:
        """Images that are best read at the same time."""
        return self.files.at_once

    def __len__(self) -> int:
        return len(self.labels)

    def about(self, at: int) -> tuple[str, int]:
        """An image's name and label."""
        return self.files.name(self._path(at)), int(self.labels[at])

    def __getitem__(self, at: int, /) -> Record:
        return Record(*self.about(at), self.files.read(at, self._path(at)))

    def _path(self, at: int) -> str:
        return f"{self.classes[int(self.labels[at])]}/{self.names[at]}"


def open_folder(root: Folder, split: Split, keep: Keep = NOT_KEPT) -> ImageFolder | None:
    """``root`` holds class folders, or ``train`` of them, ``val``, ``validation``, ``valid`` or ``test``, or both.

    Args:
        keep: where images of a bucket stay that were read.

    Raises:
        VitportError: if there are no class folders, one without an image, or splits in the place of classes.
    """
    part = split_folder(root, split)
    return None if part is None else _read(part, keep)


def split_folder(root: Folder, split: Split) -> Folder | None:
    """The folder of the split's class folders."""
    parts = {name: split_of(name) for name in root.folders()}
    training = sorted((name for name, found in parts.items() if found == "train"), key=len)
    held_out = sorted((name for name, found in parts.items() if found == "validation"), key=rank)
    others = len(parts) - len(training) - len(held_out)
    is_class = len(training) == 1 and others > 1 and not held_out  # of cars, buses and trains
    if not training or (is_class and not _has_folders(root.below(training[0]))):
        if held_out and (not others or any(name.lower() not in _CLASSES_TOO for name in held_out)):
            if others or not _has_folders(root.below(held_out[0])):
                _refuse_splits(root, held_out)
            return None if split == "train" else root.below(held_out[0])
        return None if split == "validation" else root
    if not _has_folders(root.below(training[0])) and (held_out or others or _tables(root)):
        _refuse_splits(root, [training[0], *held_out])
    if split == "train":
        return root.below(training[0])
    return root.below(held_out[0]) if held_out and _has_folders(root.below(held_out[0])) else None


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


def _has_folders(folder: Folder) -> bool:
    return any(name[0] != "." for name in folder.folders())


def _tables(root: Folder) -> list[str]:
    """Names of the tables beside the images; of training images first."""
    found = [name for name in root.files() if name.lower().endswith((".csv", ".tsv"))]
    return sorted(found, key=lambda name: ("train" not in name.lower(), "label" not in name.lower(), name))


def _refuse_splits(root: Folder, names: list[str]) -> NoReturn:
    tables = _tables(root)
    told = " and ".join(f"{name}/" for name in names)
    remedy = (
        f"name the table of labels with --data.labels {tables[0]} (--labels of evaluate)"
        if tables
        else "put the images of each class into a folder of their own within them"
    )
    raise VitportError(f"{root} holds {told}, which are splits of a data set, not classes: {remedy}.")


def _read(root: Folder, keep: Keep) -> ImageFolder:
    classes = tuple(sorted(name for name in root.folders() if name[0] != "."))
    if not classes:
        raise VitportError(
            f"{root} has no class folders: put the images of each class into a folder of their own, or "
            "name a table of labels (--data.labels)."
        )
    names, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(image_files(root.below(name)))
        if not found:
            raise VitportError(f"{root.below(name)} has no images: remove the folder, or add some.")
        names += found
        labels += [label] * len(found)
    files = root.reader([f"{classes[label]}/{name}" for label, name in zip(labels, names, strict=True)], keep)
    return ImageFolder(str(root), classes, Names.of(names), np.array(labels, np.int32), files)


def image_files(folder: Folder) -> list[str]:
    """Paths of the image files below a folder."""
    return [
        path
        for path in folder.walk()
        if path.lower().endswith(SUFFIXES) and not path.rpartition("/")[2].startswith(".")
    ]
