"""Parquet files in a bucket: their labels are read at the start, a row group of images when one of them is needed.

A row group is asked for by the ranges of its columns alone, once on a host, and lies unpacked in the host's cache then,
as whole files do that are on a disk.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from conversion.store import Objects, StoreError
from conversion.store.fetch import cache
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.arrow import record, table
from vit_jax.training.data.sources.bucket import SHARDS, Parts, RangesOf, made_once, versions_of
from vit_jax.training.data.sources.columns import check_columns, columns, labels_in, leaves
from vit_jax.training.data.sources.kept import alone
from vit_jax.training.data.sources.parquet import CACHE, unpack
from vit_jax.training.data.sources.parquet_pages import chunks
from vit_jax.training.data.sources.ranges import AT_ONCE, read_ranges
from vit_spec import VitportError

_PART = 8 << 20
"""Bytes of one request."""
_turns = threading.BoundedSemaphore(4)
"""Row groups that a process asks for at the same time: they are in memory until they are on the disk."""


@dataclass(frozen=True, eq=False)
class RowGroups:
    """Rows of Parquet files in the order of the files."""

    name: str
    classes: tuple[str, ...]
    objects: Objects
    files: tuple[str, ...]
    versions: tuple[str, ...]
    """Of each file, as part of a file's name."""
    column: str
    leaves: tuple[str, ...]
    """Paths of the columns of images in the schema."""
    group: np.ndarray
    """int32 (g, 2): of each row group its file, and its number there."""
    begins: np.ndarray
    """int64 (g,): its first row."""
    labels: np.ndarray
    at_once: int = AT_ONCE
    _opened: dict[int, Any] = field(default_factory=dict)
    """The image columns of row groups that this process has opened, memory-mapped, or the reason why it cannot."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int, /) -> Record:
        group = int(np.searchsorted(self.begins, at, side="right")) - 1
        if group not in self._opened:
            with _turns:
                if group not in self._opened:
                    self._opened[group] = self._open(group)
        found = self._opened[group]
        if isinstance(found, Exception):
            raise found
        cell = found[at - int(self.begins[group])].as_py()
        return record(f"{self.name}[{at}]", cell, self.column, int(self.labels[at]))

    def _open(self, group: int) -> Any:
        try:
            return table(str(self._unpacked(group))).column(self.column)
        except StoreError:
            raise
        except Exception as error:  # a damaged file makes pyarrow raise anything
            return error

    def _unpacked(self, group: int) -> Path:
        """The row group as an Arrow file, made once on a host."""
        from pyarrow import parquet

        file, number = self.group[group].tolist()
        goal = cache(CACHE) / f"{self.versions[file]}-{number}.arrow"
        with alone(goal):
            if not goal.exists():
                metadata = parquet.read_metadata(_footer(self.versions[file]))
                _unpack(goal, self.objects, self.files[file], metadata, [number], self.leaves)
        return goal


def open_row_groups(name: str, objects: Objects, files: Sequence[str], classes: tuple[str, ...] | None) -> RowGroups:
    """Footers and labels are read once for each version of a file.

    Raises:
        VitportError: without pyarrow, or for files that are damaged or lack the columns.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise VitportError(f"Reading {name} needs pyarrow: pip install 'vitport[parquet]'.") from error
    versions = versions_of(objects, files)
    try:
        with ThreadPoolExecutor(min(SHARDS, len(files))) as pool:
            indices = list(pool.map(lambda file, version: _indexed(objects, file, version, name), files, versions))
    except VitportError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise VitportError(f"{name} has a file that cannot be read ({error}): upload it again.") from error
    first = indices[0].schema
    image, label = columns(first, name)
    for index in indices:
        check_columns(index.schema, first, image, label, name)
    labels, classes = labels_in([index.labels for index in indices], first, label, classes, name)
    sizes = [
        [index.metadata.row_group(at).num_rows for at in range(index.metadata.num_row_groups)] for index in indices
    ]
    if [sum(each) for each in sizes] != [len(index.labels) for index in indices]:
        raise VitportError(f"{name} has a file whose row groups have other numbers of rows than it: upload it again.")
    group = [(file, number) for file, each in enumerate(sizes) for number in range(len(each))]
    begins = np.cumsum([0, *(size for each in sizes for size in each)], dtype=np.int64)[:-1]
    return RowGroups(
        name, classes, objects, tuple(files), tuple(versions), image,
        tuple(path for path in leaves(first, name) if path != label),
        np.array(group, np.int32).reshape(-1, 2), begins, labels,
    )  # fmt: skip


@dataclass(frozen=True)
class _Index:
    metadata: Any
    schema: Any
    """Of the columns of images and labels."""
    labels: Any
    """A table of all rows."""


def _indexed(objects: Objects, file: str, version: str, name: str) -> _Index:
    from pyarrow import parquet

    def write(aside: Path) -> None:
        raw = RangesOf(objects, file, objects.size(file))
        parquet.ParquetFile(raw).metadata.write_metadata_file(str(aside))

    footer = made_once(_footer(version), write)
    metadata = parquet.read_metadata(footer)
    schema = parquet.ParquetFile(Parts({}), metadata=metadata)
    wanted = leaves(schema.schema_arrow, name)
    _, label = columns(schema.schema_arrow, name)
    goal = footer.with_suffix(".labels.arrow")
    if not goal.is_file():
        _unpack(goal, objects, file, metadata, range(metadata.num_row_groups), [label])
    return _Index(metadata, schema.read_row_groups([], columns=wanted).schema, table(str(goal)))


def _footer(version: str) -> Path:
    return cache("indices") / f"{version}.footer"


def _unpack(
    goal: Path, objects: Objects, file: str, metadata: Any, groups: Sequence[int], paths: Sequence[str]
) -> None:
    from pyarrow import parquet

    places = [place for group in groups for place in chunks(metadata.row_group(group), paths)]
    raw = Parts(_read(objects, file, places))
    source = parquet.ParquetFile(raw, metadata=metadata)
    size = sum(place.stop - place.start for place in places)
    unpack(goal, cast(BinaryIO, raw), source, groups, paths, f"{objects.address}/{file}", size)


def _read(objects: Objects, file: str, places: Sequence[slice]) -> dict[int, bytes]:
    """The bytes of each place, by where it begins; many requests are under way at once."""
    pieces = [
        (place.start, slice(begin, min(begin + _PART, place.stop)))
        for place in places
        for begin in range(place.start, place.stop, _PART)
    ]
    found: dict[int, list[bytes]] = {place.start: [] for place in places}
    for (start, _), content in zip(pieces, read_ranges(objects, [(file, piece) for _, piece in pieces]), strict=True):
        found[start].append(content)
    return {start: b"".join(parts) for start, parts in found.items()}
