"""The pickle in a ``torch.save`` file: a state_dict whose tensors' values lie elsewhere in the archive."""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip
"""PyTorch's names of its classes for memory, by dtype."""


@dataclass(frozen=True)
class _Storage:
    """Stands for a record of the archive, which PyTorch knows by its key."""

    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _Tensor:
    """Stands for a whole contiguous tensor."""

    storage: _Storage
    shape: tuple[int, ...]


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> tuple[Any, ...] | None:
        import torch

        if not isinstance(obj, _Storage):
            return None
        return "storage", getattr(torch, _STORAGES[obj.dtype.name]), obj.key, "cpu", obj.count

    def reducer_override(self, obj: Any) -> Any:
        from torch._utils import _rebuild_tensor_v2

        if not isinstance(obj, _Tensor):
            return NotImplemented
        strides = tuple(math.prod(obj.shape[at + 1 :]) for at in range(len(obj.shape)))
        # What PyTorch rebuilds a tensor by: storage, offset, shape, strides, whether it is trained, and its hooks.
        return _rebuild_tensor_v2, (obj.storage, 0, obj.shape, strides, False, OrderedDict())


def state_dict_pickle(specs: Mapping[str, tuple[tuple[int, ...], np.dtype]], metadata: Mapping[str, str]) -> bytes:
    """The pickle of tensors with these shapes and dtypes, whose values are the records ``data/0``, ``data/1``, …

    Args:
        specs: name → shape and dtype, in the order of the records.
        metadata: what lies in the state_dict's ``_metadata``.
    """
    state: OrderedDict[str, _Tensor] = OrderedDict()
    for at, (name, (shape, dtype)) in enumerate(specs.items()):
        state[name] = _Tensor(_Storage(str(at), dtype, math.prod(shape)), shape)
    state._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
    text = io.BytesIO()
    _Pickler(text, protocol=2).dump(state)
    return text.getvalue()
