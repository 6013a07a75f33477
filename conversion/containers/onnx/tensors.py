"""A tensor of an ONNX file as a constant: in the file itself, or in another file of its folder."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from conversion.graph.graph import Constant
from conversion.tensors.table import BFLOAT16
from vit_spec import VitportError

if TYPE_CHECKING:
    from onnx import TensorProto

_FIELDS = {
    "float32": "float_data", "complex64": "float_data", "float64": "double_data", "complex128": "double_data",
    "int64": "int64_data", "uint32": "uint64_data", "uint64": "uint64_data",
}  # fmt: skip
"""The field that holds values of a dtype where they are not raw bytes; ``int32_data`` for all others."""
_BITS = {"float16", "bfloat16"}
"""Dtypes whose values stand in ``int32_data`` as their bits."""
_EXTERNAL = 1
"""``TensorProto.EXTERNAL``."""


def constant_of(tensor: TensorProto, folder: Path, name: str = "") -> Constant:
    """A tensor's shape and dtype, and how to read it.

    Args:
        tensor: from the file.
        folder: the file's own, which other files of weights must lie in.
        name: for messages, if the tensor has none of its own.

    Raises:
        VitportError: if shape, dtype and data contradict one another, or the data lie elsewhere.
    """
    where = f"Tensor {(tensor.name or name)[:80]!r} of the ONNX file"
    shape, dtype = tuple(tensor.dims), _dtype(tensor, where)
    if min(shape, default=0) < 0:
        raise VitportError(f"{where} has shape {shape}, with a negative side: export the model again.")
    if tensor.HasField("segment"):
        raise VitportError(f"{where} is stored in segments, which no exporter writes: export the model again.")
    nbytes = math.prod(shape) * dtype.itemsize
    if tensor.data_location == _EXTERNAL:
        path, offset = _external(tensor, folder, nbytes, where)

        def mapped() -> np.ndarray:
            if not nbytes:
                return np.empty(shape, dtype)
            return np.memmap(path, dtype.newbyteorder("<"), "r", offset, shape).view(np.ndarray)

        return Constant(shape, dtype, mapped)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != nbytes:
            raise VitportError(
                f"{where} has shape {shape} and {len(tensor.raw_data) // dtype.itemsize} numbers: fetch or export the "
                "file again."
            )
        return Constant(shape, dtype, lambda: np.frombuffer(tensor.raw_data, dtype.newbyteorder("<")).reshape(shape))
    values = getattr(tensor, _FIELDS.get(dtype.name, "int32_data"))
    if len(values) != math.prod(shape):
        raise VitportError(f"{where} has shape {shape} and {len(values)} numbers: fetch or export the file again.")
    bits = dtype.name in _BITS
    return Constant(
        shape,
        dtype,
        lambda: (np.array(values, np.uint16).view(dtype) if bits else np.array(values, dtype)).reshape(shape),
    )


def external_files(tensors: list[TensorProto], folder: Path) -> list[Path]:
    """The files beside the graph that hold these tensors, each once; those that lie elsewhere are left out."""
    locations = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return sorted(path for location in locations if (path := _inside(location, folder)) is not None)


def _dtype(tensor: TensorProto, where: str) -> np.dtype:
    from onnx import TensorProto as Proto
    from onnx import helper

    if tensor.data_type == Proto.BFLOAT16:
        return BFLOAT16
    name = Proto.DataType.Name(tensor.data_type) if tensor.data_type in Proto.DataType.values() else "no type"
    if name.startswith(("UINT4", "INT4", "UINT2", "INT2", "FLOAT8", "FLOAT4")):
        raise VitportError(f"The graph is quantised: {where[0].lower()}{where[1:]} has dtype {name.lower()}.")
    if name in ("STRING", "UNDEFINED", "no type"):
        raise VitportError(f"{where} holds {name.lower()} instead of numbers: export the model again.")
    return helper.tensor_dtype_to_np_dtype(tensor.data_type)


def _external(tensor: TensorProto, folder: Path, nbytes: int, where: str) -> tuple[Path, int]:
    """Path and offset of a tensor's data."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    path = _inside(location, folder)
    if path is None:
        raise VitportError(
            f"{where} lies in {location[:80]!r}, which is not a file in the graph's own folder {folder}: put it there."
        )
    if not path.is_file():
        raise VitportError(f"{where} lies in {path}, which does not exist: fetch it too, into the same folder.")
    try:
        offset, length = int(said.get("offset", 0)), int(said.get("length", nbytes))
    except ValueError as error:
        raise VitportError(f"{where} has an offset that is not a number: export the model again.") from error
    if length != nbytes or offset < 0 or offset + nbytes > path.stat().st_size:
        raise VitportError(
            f"{where} should be {nbytes} bytes at byte {offset} of {path}, which has {path.stat().st_size}, {length} "
            "for it: fetch both again."
        )
    return path, offset


def _inside(location: str, folder: Path) -> Path | None:
    """The file that a location means, if it lies in the folder itself."""
    if not location or "\0" in location or "\\" in location or PurePosixPath(location).is_absolute():
        return None
    if ".." in PurePosixPath(location).parts or (os.name == "nt" and ":" in location):
        return None
    path = folder / location
    if not path.exists():
        return path
    return path if path.resolve().is_relative_to(folder.resolve()) else None
