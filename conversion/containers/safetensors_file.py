"""The safetensors format: https://github.com/huggingface/safetensors#format."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from conversion.checkpoint import Checkpoint
from conversion.containers.file_checks import MOST_JSON, json_object, unique
from conversion.containers.output import Output
from conversion.containers.wall import walled
from conversion.identify.quantised import quantised
from conversion.source import Source
from conversion.tensors import buffers
from conversion.tensors.contiguous import contiguous
from conversion.tensors.table import BFLOAT16, Tensor, TensorTable
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
    """By its content, or by a name that says so."""
    return path.suffix == ".safetensors" or begins_as_one(path)


def begins_as_one(path: Path) -> bool:
    """Eight bytes of header length, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and start[3:8] == b"\0" * 5


@walled("safetensors file")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open a file; each tensor is read when it is used."""
    start, header = _header(path)
    metadata = header.pop("__metadata__", None) or {}
    if unknown := {name: entry["dtype"] for name, entry in header.items() if entry["dtype"] not in _DTYPES}:
        name, dtype = next(iter(unknown.items()))
        if dtype.startswith(("F8", "F6", "F4")):
            raise quantised(name, dtype)
        listed = ", ".join(f"{name} {dtype}" for name, dtype in unknown.items())
        raise VitportError(f"{path} has unsupported dtypes ({listed}): save it in one of {', '.join(_DTYPES)}.")
    table = TensorTable({name: _tensor(path, name, start, entry) for name, entry in header.items()})
    own = json_object(path, metadata[_OWN_KEY]) if _OWN_KEY in metadata else None
    return Source(path, "safetensors", table, (path,), own=own, under=weights_key)


def write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    """Write a table, and our record of the model in the file's metadata.

    Hashing the source takes as long as writing and runs beside it; the header reserves space for the hash.
    """
    place = "?" * 64 if checkpoint.provenance.files else ""
    with ThreadPoolExecutor(1) as hasher:
        digest = hasher.submit(lambda: checkpoint.provenance.sha256)
        metadata = {"format": "pt", _OWN_KEY: json.dumps(checkpoint.record(place))}
        with Output(path) as file:
            header = _write(file, table, metadata, progress)
            file.patch(8, header.replace(place.encode(), digest.result().encode(), 1))


def write_tensors(path: Path, table: TensorTable, metadata: dict[str, str], progress: Callable[[str], None]) -> None:
    """Write a table tensor by tensor, so that few tensors at a time are in memory.

    The library's own writer needs all of them at once.
    """
    with Output(path) as file:
        _write(file, table, metadata, progress)


def _write(file: Output, table: TensorTable, metadata: dict[str, str], progress: Callable[[str], None]) -> bytes:
    """Write a whole file; returns its header."""
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    names = sorted(table, key=lambda name: -table.spec(name)[1].itemsize)  # keeps every tensor aligned to its dtype
    for name in names:
        shape, dtype = table.spec(name)
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of eight bytes
    file.write(struct.pack("<Q", len(text)) + text)
    for name, array in table.in_turn(names):
        progress(name)
        little = contiguous(array).astype(_little(array.dtype), copy=False)
        file.write(little.reshape(-1).view(np.uint8).data)
    return text


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the data begins, and the header, whose lengths, shapes and offsets the library checks."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0]
        if length > MOST_JSON:  # which the library would parse
            raise ValueError(f"its header says it has {length} bytes")
        text = file.read(length)
    with safe_open(path, "numpy"):
        pass
    # The library would keep the last of two equal keys.
    return 8 + length, json.loads(text, object_pairs_hook=unique)


def _tensor(path: Path, name: str, start: int, entry: dict[str, Any]) -> Tensor:
    shape, dtype = tuple(entry["shape"]), _DTYPES[entry["dtype"]]
    offset = start + entry["data_offsets"][0]

    def read() -> np.ndarray:
        """Read, do not map: truncating a mapped file would kill the process."""
        array = buffers.empty(shape, _little(dtype))
        with path.open("rb") as file:
            file.seek(offset)
            if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                raise VitportError(
                    f"{path} ends within {name}: it was truncated while being read. Fetch or write it again."
                )
        return array.astype(dtype, copy=False)

    return Tensor(shape, dtype, read)


def _little(dtype: np.dtype) -> np.dtype:
    return dtype if dtype == BFLOAT16 else dtype.newbyteorder("<")  # ml_dtypes has the machine's byte order only
