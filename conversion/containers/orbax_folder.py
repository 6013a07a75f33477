"""A Flax parameter tree in an orbax checkpoint. Only this module uses orbax to convert.

Orbax writes the tree. TensorStore, on which orbax is built, writes and reads the arrays one by one; orbax itself would
hold the whole tree, and its threads print tracebacks on damaged files. The layout is that of
https://orbax.readthedocs.io/en/latest/guides/checkpoint/checkpoint_format.html: ``_METADATA`` lists the tree, and each
leaf is a zarr array under its keys joined by dots, all of them in one OCDBT database or each in a folder of its own.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.containers.file_checks import check_size, claimable, first_line, read_json, regular_files
from conversion.containers.ocdbt_size import unpacked_bytes
from conversion.containers.subtree import branch
from conversion.containers.wall import walled
from conversion.containers.zarr_metadata import FILES, check_blosc, check_zarr
from conversion.format import FolderWriter
from conversion.source import Source
from conversion.tensors.flax_tree import nest
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import VitportError

_OWN = "vitport.json"
_PARAMS = "params"
_TREE = "_METADATA"
_TOGETHER = 1 << 24
"""Bytes that are committed together. They stay in memory until then, while as many more are read."""
_ARRAYS = ("jax.Array", "np.ndarray", "scalar")
"""Orbax's words for leaves that are arrays."""


def recognises(path: Path) -> bool:
    """A folder that :func:`write` made, or an orbax checkpoint itself."""
    return (path / _OWN).is_file() or (path / _TREE).is_file()


@walled("orbax checkpoint")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open a tree saved from any devices; each array is read when it is used.

    Trees of NNX states, which store each array under ``value``, are read too.

    Args:
        weights_key: read only the names under this path, such as ``params``.
    """
    own = read_json(path / _OWN) if (path / _OWN).is_file() else None
    folder = (path / _PARAMS if own is not None else path).resolve()
    files = regular_files(path)
    real = sum(file.stat().st_size for file in files)
    check_size(path, unpacked_bytes(files, claimable(real)), real)
    tensors, strange = _tensors(folder, read_json(folder / _TREE), real)
    if not tensors:
        raise VitportError(f"{path} is not a complete orbax checkpoint (it has no tree of arrays): save it again.")
    table = TensorTable(tensors)
    check_size(path, sum(map(table.nbytes, table)), real)
    table, notes = branch(path, table, weights_key)
    if strange:
        notes += (f"set aside because they are not arrays: {', '.join(strange)}",)
    return Source(path, "orbax checkpoint", table, files, own=own, notes=notes)


def _write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    """Write a table of Flax paths as one orbax tree, with our JSON beside it and a few tensors at a time in memory.

    Orbax needs all arrays at once, so it writes a tree of single numbers, which TensorStore replaces by the arrays.
    """
    import orbax.checkpoint as ocp

    path.mkdir()
    folder = (path / _PARAMS).resolve()

    def put() -> None:
        tree = {name: np.zeros((1,) * len(table.spec(name)[0]), table.spec(name)[1]) for name in table}
        ocp.PyTreeCheckpointer(use_ocdbt=True, use_zarr3=False).save(folder, nest(tree))
        _put_arrays(folder, table, progress)

    with ThreadPoolExecutor(1) as hasher, _quiet_threads(folder):
        digest = hasher.submit(lambda: checkpoint.provenance.sha256)
        fault = _fault(put)
        if fault is not None:
            gc.collect()  # a failed task reports its error when it is collected
            raise OSError(fault)
        (path / _OWN).write_text(json.dumps(checkpoint.record(digest.result()), indent=2))


write = FolderWriter(
    _write,
    files=(
        re.escape(_OWN),
        rf"{_PARAMS}/(_METADATA|_CHECKPOINT_METADATA|_sharding|commit_success\.txt)",
        rf"{_PARAMS}/array_metadatas/process_\d+",
        rf"{_PARAMS}/(ocdbt\.process_\d+/)?(manifest\.ocdbt|d/[0-9a-f]{{32}})",
    ),
)


def _put_arrays(folder: Path, table: TensorTable, progress: Callable[[str], None]) -> None:
    """Write every array as one uncompressed chunk: compression saves a tenth and takes many times as long as a copy."""
    import tensorstore as ts

    # Flushing each file while the next arrays are read leaves nothing to flush at the end.
    context = ts.Context({"file_io_sync": True, "cache_pool": {"total_bytes_limit": 0}})
    database = {"driver": "ocdbt", "base": folder.as_uri()}
    # Delete orbax's numbers all at once: replaced one by one, they would split a commit into a file for each array.
    ts.KvStore.open(database, context=context).result().delete_range(ts.KvStore.KeyRange()).result()
    committing, transaction, held = ts.Future(None), ts.Transaction(), 0
    flushed: set[Path] = set()
    try:
        for name in table:
            progress(name)
            array = table[name]
            spec = {
                "driver": "zarr",
                "dtype": array.dtype.name,
                "kvstore": {**database, "path": name.replace("/", ".") + "/"},
                "metadata": {
                    "shape": list(array.shape), "chunks": [max(1, axis) for axis in array.shape], "compressor": None,
                },
            }  # fmt: skip
            store = ts.open(spec, create=True, context=context, transaction=transaction).result()
            # TensorStore does not copy a whole chunk. Nobody else holds the array until it is written.
            store.write(array, can_reference_source_data_indefinitely=True).result()
            held += array.nbytes
            del array
            if held > _TOGETHER:
                committing.result()
                found = set((folder / "d").iterdir())
                _leave_cache(found - flushed)
                flushed = found
                committing, transaction, held = transaction.commit_async(), ts.Transaction(), 0
    finally:
        failed = committing.exception()  # waits: after an error the caller removes the folder
    if failed is not None:
        raise failed
    transaction.commit_async().result()


def _leave_cache(files: Iterable[Path]) -> None:
    """Drop flushed files from the page cache, so that the next files reuse its pages; fresh pages cost more."""
    for file in files if hasattr(os, "posix_fadvise") else ():
        with contextlib.suppress(OSError), file.open("rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _fault(save: Callable[[], None]) -> str | None:
    """TensorStore's message about a full disk; ``None`` if saving worked."""
    try:
        save()
    except ValueError as error:
        return first_line(error)
    return None


@contextlib.contextmanager
def _quiet_threads(folder: Path) -> Iterator[None]:
    """Keep orbax's threads and tasks from printing tracebacks of an error that it raises as well.

    After an error its threads go on, and report what failed whenever it is collected: from then on reports about
    ``folder`` alone are dropped.
    """
    loggers, before = [logging.getLogger(name) for name in ("absl", "asyncio")], sys.unraisablehook
    were_disabled = [logger.disabled for logger in loggers]

    def hook(told: sys.UnraisableHookArgs) -> None:
        if str(told.exc_value) != "Event loop is closed":  # from threads that outlive an error
            before(told)

    def speaks_of_others(record: logging.LogRecord) -> bool:
        return str(folder) not in record.getMessage()

    sys.unraisablehook = hook
    for logger in loggers:
        logger.disabled = True
        logger.addFilter(speaks_of_others)
    try:
        yield
    finally:
        for logger, was_disabled in zip(loggers, were_disabled, strict=True):
            logger.disabled = was_disabled
    sys.unraisablehook = before
    for logger in loggers:
        logger.removeFilter(speaks_of_others)


def _tensors(folder: Path, metadata: dict[str, Any], real: int) -> tuple[dict[str, Tensor], list[str]]:
    """Arrays by Flax path, and the names of leaves that are not arrays."""
    import tensorstore as ts

    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    is_database = metadata.get("use_ocdbt", (folder / "manifest.ocdbt").is_file())
    tensors: dict[str, Tensor] = {}
    strange: list[str] = []
    specs: dict[str, Any] = {}
    context = ts.Context()
    for leaf in metadata["tree_metadata"].values():
        keys = [str(entry["key"]) for entry in leaf["key_metadata"]]
        name = "/".join(keys).removesuffix("/value")
        if leaf["value_metadata"]["value_type"] not in _ARRAYS:
            strange.append(name)
            continue
        if name in specs:
            raise ValueError(f"it holds {name} more than once")
        where = {"driver": "ocdbt", "base": folder.as_uri(), "path": ".".join(keys) + "/"}
        place = folder / ".".join(keys)
        if not is_database and os.path.realpath(place) != str(folder / place.name):
            raise ValueError(f"{name} lies outside the folder")
        plain = {"driver": "file", "path": f"{place}/"}
        kvstore = where if is_database else plain
        # A chunk that is gone is an error, not zeros: orbax writes every chunk, of zeros too.
        specs[name] = {"driver": driver, "kvstore": kvstore, "fill_missing_data_reads": False}
    described = {name: ts.KvStore.open(spec["kvstore"], context=context) for name, spec in specs.items()}
    reading = {name: store.result().read(FILES[driver]) for name, store in described.items()}
    by_blosc = {name for name, found in reading.items() if check_zarr(name, found.result().value, real)}
    opening = {name: ts.open(spec, open=True, read=True, context=context) for name, spec in specs.items()}
    for name, future in opening.items():
        array = future.result()

        def read(name: str = name, array: Any = array) -> np.ndarray:
            if name in by_blosc:
                _check_chunks(name, array)
            return array.read().result()

        tensors[name] = Tensor(tuple(array.shape), array.dtype.numpy_dtype, read)
    return tensors, strange


def _check_chunks(name: str, array: Any) -> None:
    """Refuse an array of Blosc's chunks that would unpack to more than its chunks."""
    size = math.prod(array.chunk_layout.read_chunk.shape) * array.dtype.numpy_dtype.itemsize
    for key in array.kvstore.list().result():
        if key.decode() not in FILES.values():
            check_blosc(name, array.kvstore.read(key).result().value, size)
