"""Flax's msgpack of a tree of arrays, as ``flax.serialization`` and ``flax.training.checkpoints`` write it.

This module alone knows flax.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.containers.claims import first_line, unique
from conversion.containers.subtree import branch
from conversion.flax_tree import flatten, nest
from conversion.source import Source
from conversion.table import TensorTable
from vit_spec import VitportError


def recognises(path: Path) -> bool:
    """A msgpack map whose first key is a string."""
    with path.open("rb") as file:
        start = file.read(6)
    if path.suffix == ".msgpack":
        return True
    header = 1 if start[:1] and 0x81 <= start[0] <= 0x8F else {b"\xde": 3, b"\xdf": 5}.get(start[:1])
    key = start[header : header + 1] if header else b""
    return bool(key) and (0xA0 <= key[0] <= 0xBF or key in (b"\xd9", b"\xda"))


def read(path: Path, weights_key: str | None = None) -> Source:
    """Open a file as a table of paths; the format has no index, so all of it is read at once.

    A checkpoint of several parts, such as (parameters, optimizer state, step), has their numbers in front of its
    names.

    Args:
        weights_key: read only the names under this path, such as ``params`` or ``0``.
    """
    import msgpack
    from flax.serialization import msgpack_restore

    content = path.read_bytes()
    try:
        # Of two equal keys Flax keeps the last, so a first pass, which keeps no array, looks at the keys alone.
        msgpack.unpackb(content, object_pairs_hook=unique, ext_hook=lambda *_: None, strict_map_key=False)
        tree = msgpack_restore(content)
    except Exception as error:  # damaged msgpack can fail in any way at all
        raise VitportError(
            f"{path} is no whole Flax msgpack file ({first_line(error)}): fetch or write it again."
        ) from error
    if not isinstance(tree, dict):
        raise VitportError(f"{path} holds {type(tree).__name__} instead of a tree: save a model's parameters.")
    flat = flatten(tree)
    arrays = {name: leaf for name, leaf in flat.items() if isinstance(leaf, np.ndarray)}
    table, notes = branch(path, TensorTable.of(arrays), weights_key)
    if strange := [name for name in flat if name not in arrays]:
        notes += (f"set aside, being no arrays: {', '.join(strange)}",)
    return Source(path, "Flax msgpack", table, (path,), notes=notes)


def write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    """Write a table of paths as one tree, and nothing but the tree; Flax wants all of it in memory at once."""
    from flax.serialization import msgpack_serialize

    del checkpoint
    arrays: dict[str, np.ndarray] = {}
    for name in table:
        progress(name)
        arrays[name] = table[name]
    path.write_bytes(msgpack_serialize(nest(arrays), in_place=True))
