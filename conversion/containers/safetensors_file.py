"""The safetensors format: https://github.com/huggingface/safetensors#format."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from conversion.checkpoint import Checkpoint
from conversion.source import Source
from conversion.table import BFLOAT16, Tensor, TensorTable
from vit_spec import VitportError

_DTYPES = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": BFLOAT16,
    "I64": np.dtype(np.int64), "I32": np.dtype(np.int32), "I16": np.dtype(np.int16), "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8), "BOOL": np.dtype(np.bool_),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_OWN_KEY = "vitport"
"""Key of our own JSON in the file's metadata."""


def recognises(path: Path) -> bool:
    """Eight bytes of header length, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (len(start) == 9 and start[8:] == b"{" and start[3:8] == b"\0" * 5)


def read(path: Path, weights_key: str | None = None) -> Source:
    """Open a file; its tensors are read one by one, when asked for."""
    del weights_key  # a file holds one table
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            specs = {name: (tuple(part.get_shape()), part.get_dtype()) for name in file.keys()  # noqa: SIM118
                     for part in [file.get_slice(name)]}  # fmt: skip
    except (SafetensorError, OSError) as error:
        raise VitportError(f"{path} is no whole safetensors file ({error}): fetch or write it again.") from error
    unknown = {name: dtype for name, (_, dtype) in specs.items() if dtype not in _DTYPES}
    if unknown:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in unknown.items())
        raise VitportError(f"{path} holds dtypes that are not read here: {listed}.")
    table = TensorTable(
        {
            name: Tensor(shape, _DTYPES[dtype], lambda name=name: _tensor(path, name))
            for name, (shape, dtype) in specs.items()
        }
    )
    own = json.loads(metadata[_OWN_KEY]) if _OWN_KEY in metadata else None
    return Source(path, "safetensors", table, (path,), own=own)


def write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    """Write a table, and our record of the model in the file's metadata."""
    write_tensors(path, table, {"format": "pt", _OWN_KEY: json.dumps(checkpoint.record())}, progress)


def write_tensors(path: Path, table: TensorTable, metadata: dict[str, str], progress: Callable[[str], None]) -> None:
    """Write a table tensor by tensor, so that one tensor at a time is in memory.

    The library's own writer wants all of them at once.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    names = sorted(table, key=lambda name: -table.spec(name)[1].itemsize)  # keeps every tensor aligned to its dtype
    for name in names:
        shape, dtype = table.spec(name)
        end = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of eight bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            progress(name)
            array = np.ascontiguousarray(table[name])
            if array.dtype == BFLOAT16:
                array = array.view(np.uint16)  # numpy's file writing knows no bfloat16
            array.astype(array.dtype.newbyteorder("<"), copy=False).tofile(file)


def _tensor(path: Path, name: str) -> np.ndarray:
    with safe_open(path, "numpy") as file:
        return file.get_tensor(name)
