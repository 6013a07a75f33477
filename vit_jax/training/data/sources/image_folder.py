"""A folder of class folders with image files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_jax.training.data.record import Record, Split
from vit_jax.training.data.sources.files import MOST_IMAGE, read_regular, walk
from vit_jax.training.data.sources.names import Names
from vit_spec import VitportError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif", ".avif")
"""Other files in a class folder are ignored: lists, annotations, thumbnail databases."""
VALIDATION = ("val", "validation", "valid", "test")
"""The first of these folders that exists holds the validation images."""


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
    """``root`` holds class folders, or ``train`` and optionally ``val``, ``validation``, ``valid`` or ``test`` of them.

    Raises:
        VitportError: if there are no class folders, or one without an image.
    """
    parts = {entry.name for entry in os.scandir(root) if entry.is_dir()}
    held_out = [part for part in VALIDATION if part in parts]
    if "train" not in parts:
        return None if split == "validation" else _read(root)
    if split == "train":
        return _read(root / "train")
    return _read(root / held_out[0]) if held_out else None


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
