"""ArrayRecord files of ``tf.train.Example``, as TensorFlow Datasets writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_jax.training.data.library import load_grain
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.files import open_regular
from vit_jax.training.data.sources.labels import LISTS, listed_classes
from vit_jax.training.data.sources.tf_example import features
from vit_spec import VitportError


@dataclass(frozen=True, eq=False)
class ArrayRecords:
    """Records with the features ``image``, the bytes of an image file, and ``label``, an integer."""

    name: str
    classes: tuple[str, ...]
    records: Any
    """grain's source of bytes, which opens its files again in every worker."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, at: int, /) -> Record:
        name = f"{self.name}[{at}]"
        try:
            found = features(self.records[at])
            (image,), (label,) = found["image"], found["label"]
        except Exception as error:  # damaged chunks make the library raise anything
            raise VitportError(
                f"{name} is not a tf.train.Example with one image and one label ({error}): write the file again."
            ) from error
        if not isinstance(image, bytes) or not isinstance(label, int) or not 0 <= label < len(self.classes):
            raise VitportError(
                f"{name} has no image, or no label from 0 to {len(self.classes) - 1}: write the file again."
            )
        return Record(name, label, image)


def open_array_records(name: str, files: Sequence[Path], classes: tuple[str, ...] | None) -> ArrayRecords:
    """Class names come from a list beside the files, so that no record has to be read for them.

    Raises:
        VitportError: without that list, or for files that are not ArrayRecords.
    """
    classes = classes or listed_classes(files[0].parent)
    if classes is None:
        raise VitportError(f"{files[0].parent} has no {LISTS[0]}: write one with a class name on each line.")
    for file in files:
        open_regular(file).close()
    try:
        return ArrayRecords(name, classes, load_grain().sources.ArrayRecordDataSource([str(file) for file in files]))
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise VitportError(f"{name} has files that are not ArrayRecords ({reason}): write them again.") from error
