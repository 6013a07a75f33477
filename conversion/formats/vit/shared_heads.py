"""Heads that share keys and values (Ainslie et al. 2023, "GQA"), as each head's own and back.

Files hold keys and values once for several heads in a row. Canonical models have them for every head: the same rows
again compute the same. They are written once again where they still are the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import VitportError

_PROJECTION = re.compile(r"((?:blocks|model\.layer)\.\d+\.att(?:n|ention)\.)(?:[kv]_proj|w[kv])\.(weight|bias)")
"""Of keys and values: in timm, from Sapiens2's authors, and in transformers' memory."""


def with_all_heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with keys and values of every head.

    Raises:
        VitportError: if they cannot be told apart by head, or are not shared by as many heads each.
    """
    found = dict(tensors)
    for name, tensor in tensors.items():
        if (match := _PROJECTION.fullmatch(name)) is None:
            continue
        at, leaf = match.groups()
        query = tensors.get(f"{at}q_proj.{leaf}", tensors.get(f"{at}wq.{leaf}"))
        norm = tensors.get(f"{at}q_norm.weight")
        if query is None or not query.shape or not tensor.shape or query.shape[0] == tensor.shape[0]:
            continue
        rows, width = tensor.shape[0], math.prod(norm.shape) if norm is not None else 0
        if not width or not rows or rows % width or query.shape[0] % rows:
            raise VitportError(
                f"{name} has {rows} rows beside {query.shape[0]} of queries: heads that share keys and values are read "
                "where norms of queries show the width of a head, and as many heads share each."
            )
        found[name] = _repeated(tensor, width, query.shape[0] // rows)
    return found


def with_shared_heads(tensors: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """The tensors with keys and values once for all heads in a row that have the same.

    Args:
        width: of a head.
    """
    found = dict(tensors)
    for at in sorted({match[1] for name in tensors if (match := _PROJECTION.fullmatch(name)) is not None}):
        names = [name for name in tensors if name.startswith(at) and _PROJECTION.fullmatch(name)]
        sharing = math.gcd(*(_sharing(tensors[name].read(), width) for name in names))
        found |= {name: _first_of_each(tensors[name], width, sharing) for name in names if sharing > 1}
    return found


def remarks(table: TensorTable) -> list[str]:
    """That heads share keys and values, where they do."""
    shapes = table.shapes
    pairs = [(match[1], name) for name in table
             if (match := _PROJECTION.fullmatch(name)) is not None and match[2] == "weight"]  # fmt: skip
    shared = {
        at
        for at, name in pairs
        if (query := shapes.get(f"{at}q_proj.weight", shapes.get(f"{at}wq.weight"))) and query != shapes[name]
    }
    return [f"heads share keys and values in {len(shared)} blocks: each head has its own here"] if shared else []


def sharing(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Of each block, how many heads in a row have the same keys and values: 1 where each has its own."""
    config, found = checkpoint.config, list[int]()
    for name in (f"blocks.{at}.attn.qkv.weight" for at in range(config.depth)):
        _, keys, values = np.split(checkpoint.params[name], 3)
        found.append(math.gcd(*(_sharing(part, config.head_dim) for part in (keys, values))))
    return tuple(found)


def _sharing(array: np.ndarray, width: int) -> int:
    """How many heads in a row have the same rows."""
    heads = array.reshape(len(array) // width, -1)
    divisors = (count for count in range(len(heads), 0, -1) if len(heads) % count == 0)
    return next(count for count in divisors if (heads.reshape(-1, count, heads.shape[1]) == heads[::count, None]).all())


def _repeated(tensor: Tensor, width: int, times: int) -> Tensor:
    rest = tensor.shape[1:]

    def read() -> np.ndarray:
        return np.repeat(tensor.read().reshape(-1, width, *rest), times, axis=0).reshape(-1, *rest)

    return Tensor((tensor.shape[0] * times, *rest), tensor.dtype, read)


def _first_of_each(tensor: Tensor, width: int, sharing: int) -> Tensor:
    rest = tensor.shape[1:]

    def read() -> np.ndarray:
        return np.ascontiguousarray(tensor.read().reshape(-1, width, *rest)[::sharing]).reshape(-1, *rest)

    return Tensor((tensor.shape[0] // sharing, *rest), tensor.dtype, read)
