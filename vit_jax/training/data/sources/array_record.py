"""ArrayRecord files of ``tf.train.Example``, as TensorFlow Datasets writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from conversion.store import Objects
from vit_jax.training.data.library import load_grain
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.bucket import Parts, indexed
from vit_jax.training.data.sources.kept import Keep, Kept
from vit_jax.training.data.sources.labels import LISTS, listed_classes
from vit_jax.training.data.sources.ranges import Ranges
from vit_jax.training.data.sources.riegeli import Chunks, find_chunks, single_record, single_records
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

        return _record(f"{self.name}[{at}]", read, self.classes)


@dataclass(frozen=True, eq=False)
class RecordsInBucket:
    """The same of objects, in which each record has a chunk of its own."""

    name: str
    classes: tuple[str, ...]
    shard: np.ndarray
    """int32 (n,): index of the file."""
    place: np.ndarray
    """int64 (n, 2): where the record's chunk begins, and its bytes."""
    ranges: Ranges

    @property
    def at_once(self) -> int:
        """Records that are best read at the same time."""
        return self.ranges.at_once

    def __len__(self) -> int:
        return len(self.shard)

    def __getitem__(self, at: int, /) -> Record:
        begin, size = self.place[at].tolist()

        def read() -> bytes:
            data = self.ranges.read(at, int(self.shard[at]), begin, size)
            return single_record(cast(BinaryIO, Parts({begin: data})), begin, size, self.name)

        return _record(f"{self.name}[{at}]", read, self.classes)


def _record(name: str, read: Callable[[], bytes], classes: tuple[str, ...]) -> Record:
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
    classes = classes or listed_classes(files[0].parent)
    if classes is None:
        raise VitportError(f"{files[0].parent} has no {LISTS[0]}: write one with a class name on each line.")
    sources, chunks = [], []
    for file in files:
        try:
            chunks.append(find_chunks(file))
            sources.append(load_grain().sources.ArrayRecordDataSource([str(file)]))
        except VitportError:
            raise
        except Exception as error:  # as above
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise VitportError(f"{file} is not an ArrayRecord file ({reason}): write it again.") from error
    return ArrayRecords(name, classes, tuple(sources), tuple(chunks), np.cumsum([len(source) for source in sources]))


def open_array_records_in_bucket(
    name: str, objects: Objects, files: Sequence[str], classes: tuple[str, ...] | None, keep: Keep | None = None
) -> RecordsInBucket | None:
    """The same for objects, whose lists of chunks are read once for each version.

    Args:
        keep: where records stay that were read.

    Returns:
        ``None`` where a chunk holds several records, or is transposed: then reading one would mean to read them all.

    Raises:
        VitportError: as :func:`open_array_records` does.
    """
    if classes is None:
        raise VitportError(f"{objects.address} has no {LISTS[0]}: write one with a class name on each line.")
    try:
        found, version = indexed(objects, files, single_records)
    except VitportError:
        raise
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise VitportError(f"{name} has a file that is not an ArrayRecord file ({reason}): write it again.") from error
    if not all(found):
        return None
    shard = np.repeat(np.arange(len(found), dtype=np.int32), [len(each) for each in found])
    place = np.array([it for each in found for it in each], np.int64)
    kept = None if keep is None else Kept(keep, version, len(shard))
    ends = [begin + size for begin, size in (each[-1] for each in found)]
    return RecordsInBucket(name, classes, shard, place, Ranges(objects, files, ends, kept))
