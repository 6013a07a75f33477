"""Parquet files, unpacked: rows can only be read together, so images lie in an Arrow file in the cache then."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from conversion.containers.file_checks import check_size
from conversion.store.fetch import cache
from vit_jax.training.data.sources.columns import leaves
from vit_jax.training.data.sources.parquet_pages import unpacked_sizes

CACHE = "parquet"
_MEMORY = 1 << 28
"""Bytes that unpacking takes."""


def unpacked(file: Path, name: str) -> str:
    """Images and labels as an uncompressed Arrow file, made once for each version of the file."""
    from pyarrow import parquet

    at = file.resolve()
    version = f"{at} {at.stat().st_size} {at.stat().st_mtime_ns}"
    goal = cache(CACHE) / f"{hashlib.sha256(os.fsencode(version)).hexdigest()[:32]}.arrow"
    if not goal.exists():
        with at.open("rb") as raw:
            source = parquet.ParquetFile(raw)
            groups = range(source.metadata.num_row_groups)
            unpack(goal, raw, source, groups, leaves(source.schema_arrow, name), str(file), at.stat().st_size)
    return str(goal)


def unpack(
    goal: Path, raw: BinaryIO, source: Any, groups: Sequence[int], paths: Sequence[str], where: str, size: int
) -> None:
    """Writes some columns of some row groups as an uncompressed Arrow file, which appears whole.

    Args:
        raw: the file itself.
        source: pyarrow's view of it.
        paths: of the columns in the schema.
        where: its name, for messages.
        size: bytes that it takes, to which what it unpacks to must be in proportion.

    Raises:
        VitportError: if it would unpack to more than a data set can.
        ValueError: if it is damaged.
    """
    import pyarrow

    rows = _rows_at_a_time(where, unpacked_sizes(raw, source.metadata, groups, paths), size)
    goal.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=goal.parent, suffix=".part")
    try:
        schema = source.read_row_groups([], columns=paths).schema
        with os.fdopen(handle, "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
            for batch in source.iter_batches(batch_size=rows, row_groups=groups, columns=paths):
                writer.write_batch(batch)
                check_size(where, sink.tell(), size)  # equal values are stored once there, here each
        Path(part).replace(goal)
    finally:
        Path(part).unlink(missing_ok=True)


def _rows_at_a_time(where: str, sizes: Sequence[int], size: int) -> int:
    """Rows that fit in memory even if each has the largest value that its column can hold.

    Raises:
        VitportError: if the file would unpack to more than a data set can.
    """
    check_size(where, sum(sizes), size)
    return max(1, min(1000, _MEMORY // max([*sizes, 1])))
