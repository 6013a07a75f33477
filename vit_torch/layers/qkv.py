"""Queries, keys and values out of one linear layer.

The layer itself stays an ordinary one with outputs (B, N, 3 D): that is what forward hooks, adapters such as LoRA and
quantization expect of ``attn.qkv``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


def project_qkv(
    layer: nn.Module, x: Float[Tensor, "B N D"], num_heads: int, head_dim: int
) -> tuple[Float[Tensor, "B h N d"], Float[Tensor, "B h N d"], Float[Tensor, "B h N d"]]:
    """``layer(x)`` as queries, keys and values: (B, N, D) -> (B, h, N, d) each.

    Args:
        layer: its outputs are [queries, keys, values], each of them head by head.
        x: tokens.
        num_heads: h.
        head_dim: d.
    """
    (qkv,) = unpacked(layer, x, (3, num_heads, head_dim))  # (B, N, 3, h, d)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return q, k, v


def project_hidden_qkv(
    layer: nn.Module, x: Float[Tensor, "B N D"], hidden_dim: int, num_heads: int, head_dim: int
) -> tuple[Float[Tensor, "B N M"], Float[Tensor, "B h N d"], Float[Tensor, "B h N d"], Float[Tensor, "B h N d"]]:
    """:func:`project_qkv` of a layer whose first ``hidden_dim`` outputs, M, are the hidden units of an MLP.

    Returns:
        Hidden units (B, N, M); queries, keys and values, (B, h, N, d) each.
    """
    hidden, qkv = unpacked(layer, x, (hidden_dim,), (3, num_heads, head_dim))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return hidden, q, k, v


def unpacked(layer: nn.Module, x: Float[Tensor, "*batch _"], *shapes: tuple[int, ...]) -> Sequence[Tensor]:
    """``layer(x)``, taken apart: (..., inputs) -> (..., *shape) for each shape, in the order of the outputs."""
    y = layer(x)
    parts = [y] if len(shapes) == 1 else y.split([math.prod(shape) for shape in shapes], dim=-1)
    return [parts[at].unflatten(-1, shape) for at, shape in enumerate(shapes)]  # torch.fx cannot iterate over parts
