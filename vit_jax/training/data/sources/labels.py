"""From the labels of a data set to class numbers and class names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conversion.containers.file_checks import read_regular
from vit_jax.training.data.sources.files import MOST_TEXT
from vit_spec import VitportError

LISTS = ("classes.txt", "classnames.txt", "label.labels.txt")
"""Files with a class name on each line, in the order of the labels; TensorFlow Datasets writes the last."""

_NUMBER = re.compile("[0-9]{1,18}")
_MOST_CLASSES = 1_000_000
"""Without a list of them; each costs memory before the first image is read."""


def listed_classes(folder: Path) -> tuple[str, ...] | None:
    """The class names of a list in the folder, if there is one; empty lines at its end are ignored.

    Raises:
        VitportError: for a list that is not UTF-8, or has an empty line between others.
    """
    path = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        names = read_regular(path, MOST_TEXT).decode().rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise VitportError(f"{path} is not UTF-8 text ({error}): write a class name on each line.") from error
    if not all(name.strip() for name in names):
        raise VitportError(f"{path} has an empty line between its names: write a class name on each line.")
    return tuple(names)


def numbered(
    values: Sequence[str] | np.ndarray, classes: tuple[str, ...] | None, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, int32 (n,), and the class names.

    Numbers, also as text, index ``classes``; without these the class names are the numbers up to the largest. Other
    text is class names: of ``classes``, or, without these, all that occur, sorted.

    Raises:
        VitportError: for a label that ``classes`` does not have, a negative one, or, without ``classes``, one of a
            million or more.
    """
    texts = np.asarray(values)
    if texts.dtype.kind not in "iu":
        texts = texts.astype(str)
        if not np.char.isdigit(texts).all():
            return _named(texts, classes, where)
        odd = next((text for text in texts.tolist() if not _NUMBER.fullmatch(text)), None)
        if odd is not None:
            raise VitportError(f"{where} has the label {odd[:40]!r}: give labels from 0, of at most 18 digits.")
    elif texts.dtype.kind == "u" and texts.max(initial=0) > np.iinfo(np.int64).max:
        raise VitportError(f"{where} has the label {texts.max()}: give labels from 0, of at most 18 digits.")
    labels = texts.astype(np.int64)
    if classes is None:
        largest = int(labels.max(initial=-1))
        if largest >= _MOST_CLASSES:
            raise VitportError(
                f"{where} has the label {largest}, and no list of classes, without which labels go up to "
                f"{_MOST_CLASSES - 1}: correct it, or write the names of the classes into {LISTS[0]}."
            )
        classes = tuple(map(str, range(largest + 1)))
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if wrong.size:
        raise VitportError(
            f"{where} has the label {wrong[0]}, and {len(classes)} classes: give labels from 0 to {len(classes) - 1}."
        )
    return labels.astype(np.int32), classes


def marked(
    rows: Sequence[Sequence[str]], classes: tuple[str, ...] | None, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Several labels each, or none: uint8 (n, classes), 1 for each label, and the class names; as :func:`numbered`."""
    numbers, names = numbered([label for row in rows for label in row] or np.zeros(0, np.int64), classes, where)
    found = np.zeros((len(rows), len(names)), np.uint8)
    found[np.repeat(np.arange(len(rows)), [len(row) for row in rows]), numbers] = 1
    return found, names


def _named(texts: np.ndarray, classes: tuple[str, ...] | None, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    known = classes or tuple(np.unique(texts).tolist())
    numbers = {name: number for number, name in enumerate(known)}
    unknown = sorted(set(texts.tolist()) - set(known))
    if unknown:
        raise VitportError(
            f"{where} has the label {unknown[0]!r}, which is not among its classes: correct it or the class list."
        )
    return np.array([numbers[text] for text in texts.tolist()], np.int32), known
