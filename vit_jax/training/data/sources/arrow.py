"""Tables of Hugging Face's ``datasets``: Parquet files, and the Arrow files that ``save_to_disk`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from conversion.containers.file_checks import open_regular
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.arrow_claims import check_claims
from vit_jax.training.data.sources.columns import check_columns, columns, labels_in
from vit_jax.training.data.sources.parquet import unpacked
from vit_spec import VitportError


@dataclass(frozen=True, eq=False)
class ArrowTables:
    """Rows of memory-mapped Arrow files; pickles hold only paths and labels."""

    name: str
    classes: tuple[str, ...]
    files: tuple[str, ...]
    column: str
    begins: np.ndarray
    """int64: index of each chunk's first row."""
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int, /) -> Record:
        chunk = int(np.searchsorted(self.begins, at, side="right")) - 1
        cell = self._chunks[chunk][at - int(self.begins[chunk])].as_py()
        return record(f"{self.name}[{at}]", cell, self.column, int(self.labels[at]))

    @cached_property
    def _chunks(self) -> list[Any]:
        return [chunk for file in self.files for chunk in table(file).column(self.column).chunks]

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_chunks"}


def open_tables(name: str, files: Sequence[Path], classes: tuple[str, ...] | None) -> ArrowTables:
    """Columns and class names come from the files' own description, if they have one.

    A row of a Parquet file cannot be read without its whole row group, so such files are unpacked once into a cache.

    Raises:
        VitportError: without pyarrow, or for files that are damaged or lack the columns.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise VitportError(f"Reading {name} needs pyarrow: pip install 'vitport[parquet]'.") from error
    for file in files:
        open_regular(file).close()
    try:
        paths = tuple(unpacked(file, name) if file.suffix.lower() == ".parquet" else str(file) for file in files)
        tables = [table(path) for path in paths]
    except VitportError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise VitportError(f"{name} has a file that cannot be read ({error}): download it again.") from error
    image, label = columns(tables[0].schema, name)
    for each in tables:
        check_columns(each.schema, tables[0].schema, image, label, name)
    labels, classes = labels_in(tables, tables[0].schema, label, classes, name)
    sizes = [len(chunk) for each in tables for chunk in each.column(image).chunks]
    begins = np.cumsum([0, *sizes], dtype=np.int64)[:-1]
    return ArrowTables(name, classes, paths, image, begins, labels)


def table(path: str) -> Any:
    """Memory-mapped; ``datasets`` writes Arrow's streaming format."""
    import pyarrow

    check_claims(path)
    found = pyarrow.ipc.open_stream(pyarrow.memory_map(path)).read_all()
    found.validate(full=True)  # else offsets of a damaged file lead outside it
    return found


def record(name: str, cell: Any, column: str, label: int) -> Record:
    """What a cell of a column of images holds: bytes, or beside them the path of their file.

    Raises:
        VitportError: if it has no bytes.
    """
    data = cell
    if isinstance(cell, dict):
        data = cell.get("bytes")
        name += f" ({cell['path']})" if cell.get("path") else ""
    if not isinstance(data, bytes):
        raise VitportError(f"{name} has no image bytes in the column {column}, at most a path: store the file itself.")
    return Record(name, label, data)
