"""ArrayRecord files of ``tf.train.Example``, as TensorFlow Datasets writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.training.data.library import load_grain
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.labels import LISTS, listed_classes
from vit_jax.training.data.sources.riegeli import Chunks, find_chunks
from vit_jax.training.data.sources.tf_example import features
from vit_spec import VitportError


@dataclass(frozen=True, eq=False)
class ArrayRecords:
    """Records with the features ``image``, the bytes of an image file, and ``label``, an integer."""

    name: str
    classes: tuple[str, ...]
    files: tuple[Any, ...]
    """grain's source of bytes for each file, which is opened again in every worker."""
    chunks: tuple[Chunks, ...]
    """Of each file."""
    ends: np.ndarray
    """int64: number of records up to the end of each file."""

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, at: int, /) -> Record:
        number = int(np.searchsorted(self.ends, at, side="right"))

        def read() -> bytes:
            file = self.files[number]
            place = at - int(self.ends[number]) + len(file)
            self.chunks[number].check(place)
            return file[place]

        return record_of(f"{self.name}[{at}]", read, self.classes)


def record_of(name: str, read: Callable[[], bytes], classes: tuple[str, ...]) -> Record:
    """
    Args:
        read: gives the example.

    Raises:
        VitportError: if it is not a training example with an image and the number of a class.
    """
    try:
        found = features(read())
        (image,), (label,) = found["image"], found["label"]
    except VitportError:
        raise
    except Exception as error:  # damaged chunks make the library raise anything
        raise VitportError(
            f"{name} is not a tf.train.Example with one image and one label ({error}): write the file again."
        ) from error
    if not isinstance(image, bytes) or not isinstance(label, int) or not 0 <= label < len(classes):
        raise VitportError(f"{name} has no image, or no label from 0 to {len(classes) - 1}: write the file again.")
    return Record(name, label, image)


def open_array_records(name: str, files: Sequence[Path], classes: tuple[str, ...] | None) -> ArrayRecords:
    """Class names come from a list beside the files, so that no record has to be read for them.

    Raises:
        VitportError: without that list, or for files that are not ArrayRecords.
    """
    classes = named(classes or listed_classes(files[0].parent), files[0].parent)
    sources, chunks = [], []
    for file in files:
        try:
            chunks.append(find_chunks(file))
            sources.append(load_grain().sources.ArrayRecordDataSource([str(file)]))
        except VitportError:
            raise
        except Exception as error:  # as above
            raise no_records(file, error) from error
    return ArrayRecords(name, classes, tuple(sources), tuple(chunks), np.cumsum([len(source) for source in sources]))


def named(classes: tuple[str, ...] | None, where: Path | str) -> tuple[str, ...]:
    """
    Raises:
        VitportError: if there is no list of classes.
    """
    if classes is None:
        raise VitportError(f"{where} has no {LISTS[0]}: write one with a class name on each line.")
    return classes


def no_records(file: Path | str, error: Exception) -> VitportError:
    """What to raise for a file that cannot be read, and why it cannot."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return VitportError(f"{file} is not an ArrayRecord file ({reason}): write it again.")
