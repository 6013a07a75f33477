"""ArrayRecord files in a bucket: lists of chunks are read at the start, a chunk when one of its records is needed.

The format's own library reads a chunk out of a file that has nothing but that chunk and the list, each in its place.
So a chunk of any kind is read, and one whose checksum is wrong is refused, as on a disk.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from conversion.store import Objects
from conversion.store.fetch import cache
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources import ranges
from vit_jax.training.data.sources.array_record import ArrayRecords, named, no_records, open_array_records, record_of
from vit_jax.training.data.sources.bucket import Bucket, Parts, copied, digest, indexed, made_once
from vit_jax.training.data.sources.kept import Keep, Kept, alone
from vit_jax.training.data.sources.riegeli import check_chunk, chunk_list
from vit_spec import VitportError

_MOST = 1 << 28
"""Bytes of the largest chunk that is read by itself."""
_ALONE = "readahead_buffer_size:0,max_parallelism:0"
"""The library's options for reading one chunk."""
_turns = threading.BoundedSemaphore(4)
"""Chunks of several records that a process unpacks at the same time."""


@dataclass(frozen=True, eq=False)
class RecordsInBucket:
    """Records in the order of the files. Of a chunk that holds several, all are kept when one is needed."""

    name: str
    classes: tuple[str, ...]
    objects: Objects
    files: tuple[str, ...]
    versions: tuple[str, ...]
    """Of each file, as part of a file's name."""
    ends: np.ndarray
    """int64 (f, 2): of each file, where its list begins, and its bytes."""
    file: np.ndarray
    """int32 (c,): of each chunk its file."""
    place: np.ndarray
    """int64 (c, 2): where it begins, and its bytes."""
    first: np.ndarray
    """int64 (c + 1,): number of its first record, and the number of all."""
    kept: Kept | None
    """Records that are on this machine's disk."""
    at_once: int = ranges.AT_ONCE

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, at: int, /) -> Record:
        return record_of(f"{self.name}[{at}]", lambda: self._read(at), self.classes)

    def _read(self, at: int) -> bytes:
        data = None if self.kept is None else self.kept.read(at)
        if data is not None:
            return data
        chunk = int(np.searchsorted(self.first, at, side="right")) - 1
        if self.kept is None or self.first[chunk + 1] == at + 1 == self.first[chunk] + 1:
            return self._unpacked(chunk)[at - int(self.first[chunk])]
        with _turns, alone(cache("records") / f"{self.versions[self.file[chunk]]}-{chunk}"):
            return self.kept.read(at) or self._unpacked(chunk)[at - int(self.first[chunk])]

    def _unpacked(self, chunk: int) -> list[bytes]:
        """The records of a chunk."""
        from array_record.python.array_record_module import ArrayRecordReader

        file, (begin, size) = int(self.file[chunk]), self.place[chunk].tolist()
        end, whole = self.ends[file].tolist()
        data = self._bytes(file, slice(begin, begin + size))
        check_chunk(cast(BinaryIO, Parts({begin: data})), begin, size, f"{self.objects.address}/{self.files[file]}")
        before = int(self.first[np.searchsorted(self.file, file)])  # records of earlier files
        own = range(int(self.first[chunk]), int(self.first[chunk + 1]))
        with _holed({begin: data, end: self._list(file)}, whole) as path:
            reader = ArrayRecordReader(path, _ALONE)
            try:
                found = reader.read([at - before for at in own])
            finally:
                reader.close()
        if self.kept is not None:
            for at, record in zip(own, found, strict=True):
                self.kept.add(at, record)
        return found

    def _list(self, file: int) -> bytes:
        """A file's list of chunks and all behind it, read once on a host."""
        begin, end = self.ends[file].tolist()
        kept = cache("indices") / f"{self.versions[file]}.list"
        return made_once(kept, lambda aside: aside.write_bytes(self._bytes(file, slice(begin, end)))).read_bytes()

    def _bytes(self, file: int, part: slice) -> bytes:
        (found,) = ranges.read_ranges(self.objects, [(self.files[file], part)])
        return found


def open_records_in_bucket(
    name: str, bucket: Bucket, files: Sequence[str], classes: tuple[str, ...] | None, keep: Keep
) -> RecordsInBucket | ArrayRecords:
    """Copies to this machine what is small, and what has a chunk too large to be read by itself.

    Args:
        keep: where records stay that were read.

    Raises:
        VitportError: without a list of classes, and for files that are not ArrayRecords.
    """
    objects = bucket.objects
    classes = named(classes, objects.address)
    try:
        found, versions = indexed(objects, files, chunk_list, "chunks")
    except VitportError:
        raise
    except Exception as error:  # damaged files make the library raise anything
        raise no_records(name, error) from error
    lists = [np.array(each, np.int64).reshape(-1, 2) for each in found]
    place = np.concatenate([np.stack([each[:-1, 0], np.diff(each[:, 0])], 1) for each in lists])
    if sum(int(each[-1, 1]) for each in lists) <= ranges.SMALL or place[:, 1].max(initial=0) > _MOST:
        folder = copied(objects, files, keep.limit)
        return open_array_records(name, [folder / file for file in files], classes)
    counts = np.concatenate([each[:-1, 1] for each in lists])
    if keep.folder is None and counts.max(initial=0) > 1:
        keep = Keep(str(cache("records")), keep.limit)
    kept = keep.of(digest(versions), int(counts.sum()))
    file = np.repeat(np.arange(len(lists), dtype=np.int32), [len(each) - 1 for each in lists])
    ends = np.stack([each[-1] for each in lists])
    first = np.concatenate([[0], np.cumsum(counts)])
    return RecordsInBucket(name, classes, objects, tuple(files), tuple(versions), ends, file, place, first, kept)


@contextmanager
def _holed(parts: Mapping[int, bytes], size: int) -> Iterator[str]:
    """The path of a file of so many bytes that has these parts by where they begin, and holes elsewhere."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("records")
        path = f"/proc/self/fd/{handle}"
    else:
        handle, path = tempfile.mkstemp()
    try:
        os.truncate(handle, size)
        for begin, part in parts.items():
            os.pwrite(handle, part, begin)
        yield path
    finally:
        os.close(handle)
        if not hasattr(os, "memfd_create"):
            Path(path).unlink()
