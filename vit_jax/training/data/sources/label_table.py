"""Images in one folder, and a table with the label of each: ``train.csv`` beside ``train_images/``."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_jax.training.data.record import Record, Split
from vit_jax.training.data.sources.folders import Files, Folder
from vit_jax.training.data.sources.image_folder import image_files, rank, split_of, split_word
from vit_jax.training.data.sources.kept import NOT_KEPT, Keep
from vit_jax.training.data.sources.labels import marked, numbered
from vit_jax.training.data.sources.names import Names
from vit_spec import VitportError

_LABEL_NAMES = re.compile(r"(class|label|category|target|species|breed|diagnosis)([ _]?(name|id|idx|index))?s?|y", re.I)
_SEPARATORS = "|;"
"""No name of a class has them, so they separate labels; other separators are named by the user."""
_SPLIT_NAMES = re.compile(r"(data)?[ _]?(split|set|subset|partition|fold|phase)", re.I)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images in the order of their table."""

    name: str
    classes: tuple[str, ...]
    names: Names
    """Paths below the folder of images."""
    labels: np.ndarray
    """int32 (n,); or uint8 (n, classes) where an image may have several."""
    files: Files

    @property
    def at_once(self) -> int:
        """Images that are best read at the same time."""
        return self.files.at_once

    def __len__(self) -> int:
        return len(self.labels)

    def about(self, at: int) -> tuple[str, int | np.ndarray]:
        """An image's name and label."""
        label = self.labels[at]
        return self.files.name(self.names[at]), int(label) if self.labels.ndim == 1 else label

    def __getitem__(self, at: int, /) -> Record:
        return Record(*self.about(at), self.files.read(at, self.names[at]))


def open_table(
    root: Folder,
    table: str,
    content: bytes,
    split: Split,
    classes: tuple[str, ...] | None,
    image_column: str | None = None,
    label_column: str | None = None,
    rows_of: Split | None = None,
    separator: str | None = None,
    several: bool = False,
    keep: Keep = NOT_KEPT,
) -> LabelledImages | None:
    """The images that a table of comma-, semicolon- or tab-separated values lists.

    Args:
        root: a folder with the images, at any depth. Where it has a folder of the images of the table's split, such
            as ``train_images``, only these are the table's.
        table: path or address of the table, which says of which split it is.
        content: of the table. Its columns may have names in the first row. Without ``image_column`` the first column
            whose values are image files counts, with or without their extension. Without ``label_column`` it is the one
            that is named ``label``, ``class`` or the like, the only other one, or, where all others are 0 and 1 with
            one 1 in a row, the name of the column with the 1. Where rows have several such columns with a 1, or none,
            an image has several labels, or none: the names of these columns.
        split: rows with ``train`` or ``test`` in a column ``split`` are of that split; without one all are of the
            table's.
        rows_of: the table's split; ``None`` is what its name says, ``val.csv``, else training.
        separator: between the labels of an image in the column of labels; ``None`` is a vertical bar or a semicolon,
            where the column has one.
        several: whether images have several labels, whatever these rows show, as others of the data set do.
        keep: where images of a bucket stay that were read.

    Raises:
        VitportError: if the content is no table, a column cannot be found, or rows have no image.
    """
    header, rows = _rows(table, content)
    stem = Path(table).stem
    whole = rows_of or split_of(stem) or "train"
    files = _image_files(root, whole, stem)
    at = _image_column(table, header, rows, files, image_column)
    if at is None:
        raise VitportError(
            f"{table} has no column whose values are images below {root}: name it with data.image_column, one of "
            f"{', '.join(header)}."
        )
    if image_column is None and header[at] in files:  # no names in the first row
        header, rows = [str(number) for number in range(len(header))], [header, *rows]
    splits = next((n for n, name in enumerate(header) if n != at and _is_split_column(name, rows, n)), None)
    columns = [n for n in range(len(header)) if n not in (at, splits)]
    labels, names = _labels(table, header, rows, columns, label_column, separator, several, classes)
    if splits is not None:
        kept = [n for n, row in enumerate(rows) if split_of(row[splits]) == split]
    else:
        kept = list(range(len(rows))) if split == whole else []
    if not kept:
        return None
    absent = [rows[n][at] for n in kept if rows[n][at] not in files]
    if absent:
        raise VitportError(
            f"{table} lists {len(absent)} of {len(kept)} images that are not below {root}, such as {absent[0]!r}: give "
            "the folder that holds them."
        )
    paths = [files[rows[n][at]] for n in kept]
    return LabelledImages(table, names, Names.of(paths), labels[kept], root.reader(paths, keep))


def _rows(table: str, content: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise VitportError(f"{table} cannot be read as a table of labels ({error}): give a CSV file.") from error
    first = text.partition("\n")[0]
    delimiter = max((",", ";", "\t", " "), key=first.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise VitportError(f"{table} is not a table of labels: it must have rows with an image and its label.")
    odd = next((number for number, row in enumerate(rows, 1) if len(row) != len(rows[0])), None)
    if odd is not None:
        raise VitportError(f"{table} has {len(rows[odd - 1])} values in row {odd}, but {len(rows[0])} in the first.")
    return rows[0], rows[1:]


def _image_files(root: Folder, split: Split, stem: str) -> dict[str, str]:
    """How a table may call an image → its path below ``root``. Of the split's images, if there is a folder of them."""
    parts = [name for name in root.folders() if split_of(name) == split]
    said = [name for name in parts if split_word(name) == split_word(stem)]  # test.csv is not of val_images
    parts = said or (sorted(parts, key=rank)[:1] if split == "validation" else parts)
    above = f"{parts[0]}/" if len(parts) == 1 else ""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for path in image_files(root.below(parts[0]) if above else root):
        below, file = f"{above}{path}", path.rpartition("/")[2]
        for call in {below, below.rpartition(".")[0], path, file, file.rpartition(".")[0]}:
            if found.setdefault(call, below) != below:
                twice.add(call)
    return {call: below for call, below in found.items() if call not in twice}


def _image_column(
    table: str, header: Sequence[str], rows: Sequence[Sequence[str]], files: dict[str, str], named: str | None
) -> int | None:
    if named is not None:
        return _named(table, header, named, "data.image_column")
    counts = [sum(row[at] in files for row in rows) for at in range(len(header))]
    best = max(range(len(header)), key=counts.__getitem__)
    return best if 2 * counts[best] > len(rows) else None


def _labels(
    table: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: Sequence[int],
    named: str | None,
    separator: str | None,
    several: bool,
    classes: tuple[str, ...] | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of all rows, so that splits agree, and the names of the classes."""
    said = [at for at in columns if _LABEL_NAMES.fullmatch(header[at])] or list(columns)
    if named is not None:
        said = [_named(table, header, named, "data.label_column")]
    if len(said) == 1:
        texts = [row[said[0]] for row in rows]
        separator = separator or next((one for one in _SEPARATORS if any(one in text for text in texts)), None)
        if separator is None and not several:
            return numbered(texts, classes, table)
        parts = [text.split(separator) if separator else [text] for text in texts]
        return marked([[part.strip() for part in row if part.strip()] for row in parts], classes, table)
    values = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
    if not any(row[at] in ("0", "0.0") for row in rows for at in columns):
        values |= {"-1": 0, "-1.0": 0}  # as CelebA has it; beside a 0 it may mean that nobody knows
    marks = [[values.get(row[at]) for at in columns] for row in rows]
    if all(None not in row for row in marks):
        names = [[header[at] for at, mark in zip(columns, row, strict=True) if mark] for row in marks]
        if several or any(len(row) != 1 for row in names):
            return marked(names, classes or tuple(header[at] for at in columns), table)
        return numbered([name for (name,) in names], classes, table)
    raise VitportError(
        f"{table} has several columns that may be the label: name it with data.label_column, one of "
        f"{', '.join(header[at] for at in columns)}."
    )


def _named(table: str, header: Sequence[str], name: str, option: str) -> int:
    if name not in header:
        raise VitportError(f"{table} has no column {name!r} ({option}): its columns are {', '.join(header)}.")
    return list(header).index(name)


def _is_split_column(name: str, rows: Sequence[Sequence[str]], at: int) -> bool:
    return bool(_SPLIT_NAMES.fullmatch(name)) and all(split_of(row[at]) is not None for row in rows)
