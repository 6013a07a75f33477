"""Tables of Hugging Face's ``datasets``: Parquet files, and the Arrow files that ``save_to_disk`` writes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from conversion.containers.file_checks import check_size, open_regular
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.arrow_claims import check_claims
from vit_jax.training.data.sources.labels import numbered
from vit_jax.training.data.sources.parquet_pages import unpacked_sizes
from vit_spec import VitportError

_IMAGES, _LABELS = ("image", "img"), ("label", "labels")
"""Usual column names, for files that do not describe their columns."""
_MEMORY = 1 << 28
"""Bytes that unpacking takes."""


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
        name = f"{self.name}[{at}]"
        data = cell
        if isinstance(cell, dict):
            data = cell.get("bytes")
            name += f" ({cell['path']})" if cell.get("path") else ""
        if not isinstance(data, bytes):
            raise VitportError(
                f"{name} has no image bytes in the column {self.column}, at most a path: store the file itself."
            )
        return Record(name, int(self.labels[at]), data)

    @cached_property
    def _chunks(self) -> list[Any]:
        return [chunk for file in self.files for chunk in _table(file).column(self.column).chunks]

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
        paths = tuple(_unpacked(file, name) if file.suffix.lower() == ".parquet" else str(file) for file in files)
        tables = [_table(path) for path in paths]
    except VitportError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise VitportError(f"{name} has a file that cannot be read ({error}): download it again.") from error
    image, label = _columns(tables[0].schema, name)
    for table in tables:
        _check_columns(table, tables[0].schema, image, label, name)
    values = np.concatenate([table.column(label).to_numpy() for table in tables])
    names = _description(tables[0].schema, name).get(label, {}).get("names")
    if classes is None and names:
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise VitportError(f"{name} describes classes that are not a list of names: correct its description.")
        classes = tuple(names)
    labels, classes = numbered(values, classes, name)
    sizes = [len(chunk) for table in tables for chunk in table.column(image).chunks]
    begins = np.cumsum([0, *sizes], dtype=np.int64)[:-1]
    return ArrowTables(name, classes, paths, image, begins, labels)


def _table(path: str) -> Any:
    """Memory-mapped; ``datasets`` writes Arrow's streaming format."""
    import pyarrow

    check_claims(path)
    table = pyarrow.ipc.open_stream(pyarrow.memory_map(path)).read_all()
    table.validate(full=True)  # else offsets of a damaged file lead outside it
    return table


def _check_columns(table: Any, schema: Any, image: str, label: str, name: str) -> None:
    """
    Raises:
        VitportError: if a file has other columns than the first, or they hold no images and labels.
    """
    for column in (image, label):
        if table.schema.names.count(column) != 1 or table.schema.field(column).type != schema.field(column).type:
            raise VitportError(f"{name} has files whose column {column} differs: give files that belong together.")
    if table.column(label).null_count:
        raise VitportError(f"{name} has rows without a {label}: remove them.")


def _columns(schema: Any, name: str) -> tuple[str, str]:
    """The names of the columns of images and of labels.

    Raises:
        VitportError: if there are none, or they hold something else.
    """
    from pyarrow import types

    described = _description(schema, name)
    image = _column(schema, described, "Image", _IMAGES, name)
    label = _column(schema, described, "ClassLabel", _LABELS, name)
    for column in (image, label):
        if schema.names.count(column) != 1:
            raise VitportError(f"{name} has {schema.names.count(column)} columns called {column}: keep one.")
    kind = schema.field(image).type
    kinds = [kind.field(at) for at in range(kind.num_fields)] if types.is_struct(kind) else []
    content = next((field.type for field in kinds if field.name == "bytes"), kind)
    if not (types.is_binary(content) or types.is_large_binary(content)):
        raise VitportError(f"{name} has {kind} in the column {image}, and no bytes of image files: store them in it.")
    kind = schema.field(label).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise VitportError(f"{name} has {kind} in the column {label}: give numbers or names as labels.")
    return image, label


def _description(schema: Any, name: str) -> dict[str, Any]:
    """Column → its description by ``datasets``."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        found = json.loads(text) if text is not None else {}
        for key in ("info", "features"):
            found = found.get(key, {})
        return {column: dict(facts) for column, facts in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise VitportError(
            f"{name} describes itself in the schema's metadata (huggingface), but not by JSON objects: remove that."
        ) from error


def _column(schema: Any, described: dict[str, Any], kind: str, usual: Sequence[str], name: str) -> str:
    """The column of this kind; among several, or without a description, the one with a usual name."""
    kinds = [column for column in schema.names if described.get(column, {}).get("_type") == kind]
    candidates = kinds if len(kinds) == 1 else [column for column in usual if column in (kinds or schema.names)]
    if not candidates:
        what = f"only one of {', '.join(kinds)}" if kinds else f"a column called {usual[0]}"
        raise VitportError(f"{name} has the columns {', '.join(schema.names)}: keep {what}, for the {kind}.")
    return candidates[0]


def _unpacked(file: Path, name: str) -> str:
    """Images and labels as an uncompressed Arrow file in the cache, made once for each version of the file."""
    import pyarrow
    from pyarrow import parquet

    at = file.resolve()
    version = f"{at} {at.stat().st_size} {at.stat().st_mtime_ns}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitport" / "parquet"
    goal = cache / f"{hashlib.sha256(os.fsencode(version)).hexdigest()[:32]}.arrow"
    if not goal.exists():
        source = parquet.ParquetFile(at)
        leaves = _leaves(source.schema_arrow, name)
        rows = _rows_at_a_time(file, unpacked_sizes(at, source.metadata, leaves))
        cache.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=cache, suffix=".part")
        try:
            schema = source.read_row_groups([], columns=leaves).schema
            with os.fdopen(handle, "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
                for batch in source.iter_batches(batch_size=rows, columns=leaves):
                    writer.write_batch(batch)
                    check_size(file, sink.tell(), at.stat().st_size)  # equal values are stored once there, here each
            Path(part).replace(goal)
        finally:
            Path(part).unlink(missing_ok=True)
    return str(goal)


def _leaves(schema: Any, name: str) -> list[str]:
    """Where images and labels lie: other columns can hold lists, of which a few bytes stand for millions of values."""
    image, label = _columns(schema, name)
    kind = schema.field(image).type
    inner = [kind.field(at).name for at in range(kind.num_fields)]
    return [label, *(f"{image}.{part}" for part in ("bytes", "path") if part in inner)] if inner else [label, image]


def _rows_at_a_time(file: Path, sizes: Sequence[int]) -> int:
    """Rows that fit in memory even if each has the largest value that its column can hold.

    Raises:
        VitportError: if the file would unpack to more than a data set can.
    """
    check_size(file, sum(sizes), file.stat().st_size)
    return max(1, min(1000, _MEMORY // max([*sizes, 1])))
