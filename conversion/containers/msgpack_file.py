"""Flax's msgpack of a tree of arrays, as ``flax.serialization`` and ``flax.training.checkpoints`` write it.

Only this module uses flax, and only to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.containers.msgpack_tree import Stored, walk
from conversion.containers.output import Output
from conversion.containers.subtree import branch
from conversion.containers.wall import walled
from conversion.source import Source
from conversion.tensors import buffers
from conversion.tensors.contiguous import contiguous
from conversion.tensors.flax_tree import flatten, nest
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import VitportError

# https://github.com/msgpack/msgpack/blob/master/spec.md
_BINARY, _EXTENSION = (0xC4, 0xC5, 0xC6), (0xC7, 0xC8, 0xC9)
_FIXED = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
"""Length of an extension → its own code, for the lengths that have one."""
_ARRAY = 1
"""Flax's extension type for arrays."""


def recognises(path: Path) -> bool:
    """By its content, or by a name that says so."""
    return path.suffix == ".msgpack" or begins_as_one(path)


def begins_as_one(path: Path) -> bool:
    """A msgpack map whose first key is a string."""
    with path.open("rb") as file:
        start = file.read(6)
    header = 1 if start[:1] and 0x81 <= start[0] <= 0x8F else {b"\xde": 3, b"\xdf": 5}.get(start[:1])
    key = start[header : header + 1] if header else b""
    return bool(key) and (0xA0 <= key[0] <= 0xBF or key in (b"\xd9", b"\xda"))


@walled("Flax msgpack file")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open a file as a table of paths; each array is read when it is used.

    In a checkpoint of several parts, such as (parameters, optimizer state, step), names begin with the part's number.

    Args:
        weights_key: read only the names under this path, such as ``params`` or ``0``.
    """
    with path.open("rb") as file:
        tree = walk(file)
    if not isinstance(tree, Mapping):
        raise VitportError(f"{path} holds {type(tree).__name__} instead of a tree: save a model's parameters.")
    flat = flatten(tree)
    arrays = {name: _tensor(path, name, leaf) for name, leaf in flat.items() if isinstance(leaf, Stored)}
    table, notes = branch(path, TensorTable(arrays), weights_key)
    if strange := [name for name in flat if name not in arrays]:
        notes += (f"set aside because they are not arrays: {', '.join(strange)}",)
    return Source(path, "Flax msgpack", table, (path,), notes=notes)


def _tensor(path: Path, name: str, stored: Stored) -> Tensor:
    def read() -> np.ndarray:
        array = buffers.empty(stored.shape, stored.dtype)
        left = array.reshape(-1).view(np.uint8).data
        with path.open("rb") as file:
            for at, count in stored.places:
                file.seek(at)
                if file.readinto(left[:count]) != count:
                    raise VitportError(
                        f"{path} ends within {name}: it was truncated while being read. Fetch or write it again."
                    )
                left = left[count:]
        return array

    return Tensor(stored.shape, stored.dtype, read)


def write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    """Write a table of paths as one tree, and nothing but the tree, as ``flax.serialization.to_bytes`` does.

    Flax itself holds the tree and three copies of it in memory; this holds two tensors.
    """
    del checkpoint
    tree = nest({name: name for name in table})
    with Output(path) as file:
        arrays = table.in_turn(flatten(tree).values())
        _write_tree(file, tree, arrays, progress)


def _write_tree(
    file: Output,
    tree: Mapping[str, Any],
    arrays: Iterator[tuple[str, np.ndarray]],
    progress: Callable[[str], None],
) -> None:
    import msgpack

    packer = msgpack.Packer()
    file.write(packer.pack_map_header(len(tree)))
    for key, node in tree.items():
        file.write(packer.pack(key))
        if isinstance(node, Mapping):
            _write_tree(file, node, arrays, progress)
        else:
            name, array = next(arrays)
            progress(name)
            _write_array(file, array)


def _write_array(file: Output, array: np.ndarray) -> None:
    """Flax's own extension of msgpack: (shape, dtype, bytes) as an entry of type 1."""
    import msgpack
    from flax import serialization

    if array.nbytes > serialization.MAX_CHUNK_SIZE:
        # Flax writes a large array as a map of chunks. Take it out of a map with this one entry.
        file.write(serialization.msgpack_serialize({"a": array}, in_place=True)[len(b"\x81\xa1a") :])
        return
    packer = msgpack.Packer()
    head = packer.pack_array_header(3) + packer.pack(array.shape) + packer.pack(array.dtype.name)
    head += _header(_BINARY, array.nbytes)
    size = len(head) + array.nbytes
    if size in _FIXED:
        file.write(bytes([_FIXED[size], _ARRAY]))
    else:
        file.write(_header(_EXTENSION, size) + bytes([_ARRAY]))
    file.write(head)
    file.write(contiguous(array).reshape(-1).view(np.uint8).data)


def _header(codes: tuple[int, int, int], size: int) -> bytes:
    """The code for a length of one, two or four bytes, followed by the length."""
    width = 0 if size < 1 << 8 else 1 if size < 1 << 16 else 2
    return bytes([codes[width]]) + size.to_bytes(1 << width, "big")
