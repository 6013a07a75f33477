"""Arrays in numpy's ``.npz``: ``images`` and ``labels``, alone or one pair for each split. No pickle is ever opened."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from conversion.containers.file_checks import check_size, open_regular
from vit_jax.training.data.record import Record, Split
from vit_jax.training.data.sources.image_folder import rank, split_of
from vit_jax.training.data.sources.labels import numbered
from vit_spec import VitportError

_WORDS = {"images": r"(images?|x|pixels|data)", "labels": r"(labels?|y|targets?|classes)"}


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images and labels of one file; pickles hold only its path and labels, and each worker reads the images."""

    path: Path
    split: Split
    member: str
    classes: tuple[str, ...]
    labels: np.ndarray
    """int32 (n,); or uint8 (n, classes) where an image may have several."""

    @property
    def name(self) -> str:
        return f"{self.path} ({self.member})"

    @cached_property
    def images(self) -> np.ndarray:
        """(n, H, W, C), of any type."""
        pixels = _read(self.path, self.member)
        return pixels[..., None] if pixels.ndim == 3 else pixels

    def check(self, any_range: bool) -> None:
        """
        Args:
            any_range: whether the range of values is known, so that they may be other than uint8.

        Raises:
            VitportError: if the arrays are not images, or do not belong together.
        """
        pixels = self.images
        fits = pixels.ndim == 4 and pixels.shape[3] in (1, 3) and 0 not in pixels.shape[1:]
        if not fits or not (pixels.dtype == np.uint8 or (any_range and pixels.dtype.kind in "uif")):
            raise VitportError(
                f"{self.name} is {pixels.dtype} {pixels.shape}: expected images as uint8 (n, height, width), or "
                "(n, height, width, 1 or 3), with values from 0 to 255; for other values give --data.range LOW HIGH."
            )
        if len(pixels) != len(self.labels):
            raise VitportError(
                f"{self.path} has {len(pixels)} images, and {len(self.labels)} labels: give arrays that belong "
                "together."
            )

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "images"}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int, /) -> Record:
        label = self.labels[at]
        return Record(f"{self.name}[{at}]", int(label) if self.labels.ndim == 1 else label, self.images[at])


def open_npz(path: Path, split: Split, classes: tuple[str, ...] | None) -> Arrays | None:
    """
    Args:
        path: a file, or a folder of files named after splits, such as ``train.npz`` and ``val.npz``. In a file, arrays
            may be of splits: ``train_images`` and ``val_labels``, or ``x_train`` and ``y_test``.

    Raises:
        VitportError: for a damaged file, objects that only a pickle could read, and arrays that are missing or are not
            uint8 images and their labels.
    """
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    named = {file: split_of(file.stem) for file in files}
    own = [file for file in files if (named[file] or "train") == split]
    parts = [(file, None) for file in own] if len(files) > 1 else [(files[0], named[files[0]])]
    if len(parts) > 1:
        raise VitportError(f"{path} has several files of the {split} split, {own[0].name} and {own[1].name}: give one.")
    for file, _ in parts:
        found = _members(file)
        images, labels = (_of_split(found[what], split, len(files) > 1) for what in ("images", "labels"))
        if images is None and labels is None:
            return None
        if images is None or labels is None:
            lacks = "images" if images is None else "labels"
            raise VitportError(
                f"{file} has no {lacks} of the {split} split: save both, as with numpy.savez(path, images=…, labels=…)."
            )
        values = _read(file, labels)
        if values.ndim == 2 and values.shape[1] > 1:
            return Arrays(file, split, images, *_marks(values, classes, f"{file} ({labels})"))
        values = values.reshape(-1)
        if values.dtype.kind in "bf" and (values == values.astype(np.int64)).all():
            values = values.astype(np.int64)
        numbers, names = numbered(values, classes, f"{file} ({labels})")
        return Arrays(file, split, images, names, numbers)
    return None


def _marks(values: np.ndarray, classes: tuple[str, ...] | None, where: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of classes, and uint8 (n, classes), of an array with a column for each class."""
    names = classes or tuple(map(str, range(values.shape[1])))
    if values.dtype.kind not in "biuf" or not ((values == 0) | (values == 1)).all() or len(names) != values.shape[1]:
        raise VitportError(
            f"{where} is {values.dtype} {values.shape}: expected a label for each image, or a column for each of "
            f"{len(names)} classes, 1 where the image has it and else 0."
        )
    return names, values.astype(np.uint8)


def _members(path: Path) -> dict[str, dict[Split | None, str]]:
    """What → split → the array's name."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            check_size(path, sum(info.file_size for info in archive.infolist()), path.stat().st_size)
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (OSError, zipfile.BadZipFile) as error:
        raise VitportError(f"{path} cannot be read ({error}): save it again, as with numpy.savez.") from error
    found: dict[str, dict[Split | None, str]] = {"images": {}, "labels": {}}
    for name in sorted(names, key=_preference):
        words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
        splits: list[Split] = [split for word in words if (split := split_of(word))]
        for what, pattern in _WORDS.items():
            if sum(bool(re.fullmatch(pattern, word)) for word in words) == 1 and len(words) == 1 + len(splits):
                found[what].setdefault(splits[0] if splits else None, name)
    if not found["images"] or not found["labels"]:
        raise VitportError(
            f"{path} holds the arrays {', '.join(names) or 'none'}: expected images and labels, as with "
            "numpy.savez(path, images=…, labels=…)."
        )
    return found


def _preference(name: str) -> tuple[int, str]:
    """``val`` before ``test``, for images and labels alike."""
    return rank(name) if any(word in name.lower() for word in ("val", "dev", "test")) else (0, name)


def _of_split(names: dict[Split | None, str], split: Split, whole_file: bool) -> str | None:
    """The array of a split; one that names none is of training, or of the split that its file is named after."""
    return names.get(split) or (names.get(None) if split == "train" or whole_file else None)


def _read(path: Path, member: str) -> np.ndarray:
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            return archive[member]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise VitportError(
            f"{path} ({member}) cannot be read ({error}): save it again, as with numpy.savez."
        ) from error
