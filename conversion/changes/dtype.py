"""All weights in another floating-point type."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import ml_dtypes
import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.tensors.table import BFLOAT16, Tensor, TensorTable
from vit_spec import VitportError

Dtype = Literal["float32", "float16", "bfloat16", "float64"]

DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
    "float64": np.dtype(np.float64),
}


def with_dtype(checkpoint: Checkpoint, dtype: Dtype) -> Checkpoint:
    """The checkpoint with every tensor cast, when it is read, to the nearest values of another type.

    If the new type has a smaller range, every tensor is read once in advance, to report those with values that become
    infinite.

    Raises:
        VitportError: for an unknown type.
    """
    if dtype not in DTYPES:
        raise VitportError(f"dtype={dtype!r} is unknown: choose one of {', '.join(DTYPES)}.")
    target = DTYPES[dtype]
    tensors = checkpoint.params.tensors
    old = sorted({str(tensor.dtype) for tensor in tensors.values()} - {dtype})
    if not old:
        return checkpoint
    overflowing = [f"{name} ({count})" for name, tensor in tensors.items() if (count := _overflow(tensor, target))]
    cast = TensorTable({name: _cast(tensor, target) for name, tensor in tensors.items()})
    changed = replace(checkpoint, params=cast).changed(f"dtype {dtype} in place of {', '.join(old)}")
    if overflowing:
        beyond = f"{float(ml_dtypes.finfo(target).max):.6g}, the largest of {dtype}"
        changed = changed.changed(f"values beyond {beyond}, became infinite in {', '.join(overflowing)}")
    return changed


def _cast(tensor: Tensor, target: np.dtype) -> Tensor:
    return tensor if tensor.dtype == target else Tensor(tensor.shape, target, lambda: _nearest(tensor.read(), target))


def _nearest(array: np.ndarray, target: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):  # reported in a note
        return array.astype(target)


def _overflow(tensor: Tensor, target: np.dtype) -> int:
    """How many finite values become infinite; reads the tensor only if any can."""
    if tensor.dtype.kind in "iub" or ml_dtypes.finfo(tensor.dtype).max <= ml_dtypes.finfo(target).max:
        return 0
    array = tensor.read()
    return int((np.isfinite(array) & ~np.isfinite(_nearest(array, target))).sum())
