"""The pickle in a ``torch.save`` file: a state_dict whose tensors' values are elsewhere in the archive.

It is assembled from pickle instructions, because PyTorch would need the tensors and all its libraries in memory.
PyTorch rebuilds a tensor from its storage, an offset, shape, strides, ``requires_grad`` and its hooks.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip
"""Dtype → PyTorch's class of storage."""
_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def state_dict_pickle(specs: Mapping[str, tuple[tuple[int, ...], np.dtype]], metadata: Mapping[str, str]) -> bytes:
    """The pickle of tensors with these shapes and dtypes, whose values are the records ``data/0``, ``data/1``, …

    Args:
        specs: name → shape and dtype, in the order of the records.
        metadata: the state_dict's ``_metadata``.
    """
    tensors = (_plain(name) + _tensor(str(at), *spec) for at, (name, spec) in enumerate(specs.items()))
    told = b"}" + _plain("_metadata") + _dict(_plain(key) + _plain(text) for key, text in metadata.items()) + b"s"
    return pickle.PROTO + b"\2" + _dict(tensors) + told + pickle.BUILD + pickle.STOP


def _dict(entries: Iterable[bytes]) -> bytes:
    return _ORDERED_DICT + pickle.MARK + b"".join(entries) + pickle.SETITEMS


def _tensor(key: str, shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    strides = tuple(math.prod(shape[at + 1 :]) for at in range(len(shape)))
    kind = b"ctorch\n" + _STORAGES[dtype.name].encode() + b"\n"
    storage = b"(" + _plain("storage") + kind + _plain(key) + _plain("cpu") + _plain(math.prod(shape)) + b"tQ"
    arguments = storage + _plain(0) + _plain(shape) + _plain(strides) + _plain(False) + _ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _plain(value: Any) -> bytes:
    """The instructions for a string, a number or a tuple, without those that begin and end a pickle."""
    return pickle.dumps(value, protocol=2)[2:-1]
