"""Queries, keys and values out of one linear layer.

The layer itself stays an ordinary one with outputs (B, N, 3 D): that is what forward hooks, adapters such as LoRA and
quantization expect of ``attn.qkv``.
"""

from __future__ import annotations

from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.xla.packed import apart, unpacked


def project_qkv(
    layer: nnx.Linear, x: Float[Array, "B N D"], num_heads: int, head_dim: int
) -> tuple[Float[Array, "B h N d"], Float[Array, "B h N d"], Float[Array, "B h N d"]]:
    """``layer(x)`` as queries, keys and values: (B, N, D) -> (B, h, N, d) each.

    Args:
        layer: its outputs are [queries, keys, values], each of them head by head.
        x: tokens.
        num_heads: h.
        head_dim: d.
    """
    (qkv,) = unpacked(layer, x, (3, num_heads, head_dim))  # (B, N, 3, h, d)
    q, k, v = apart(qkv.transpose(2, 0, 3, 1, 4))
    return q, k, v


def project_hidden_qkv(
    layer: nnx.Linear, x: Float[Array, "B N D"], hidden_dim: int, num_heads: int, head_dim: int
) -> tuple[Float[Array, "B N M"], Float[Array, "B h N d"], Float[Array, "B h N d"], Float[Array, "B h N d"]]:
    """:func:`project_qkv` of a layer whose first ``hidden_dim`` outputs, M, are the hidden units of an MLP.

    Returns:
        Hidden units (B, N, M); queries, keys and values, (B, h, N, d) each.
    """
    hidden, qkv = unpacked(layer, x, (hidden_dim,), (3, num_heads, head_dim))
    q, k, v = apart(qkv.transpose(2, 0, 3, 1, 4))
    return hidden, q, k, v
