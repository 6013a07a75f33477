"""Multi-head self-attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.layers.dropout import Dropout, DropoutKeys
from vit_jax.layers.initialization import make_linear
from vit_jax.layers.norm import NormLayer
from vit_jax.layers.xla.packed import Part, unpacked
from vit_jax.layers.xla.rows import at_least_float32
from vit_spec import VitportError


class Attention(nnx.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2), written out so that every step can be read.

    Args:
        dim: width D of the tokens; a multiple of ``num_heads``.
        num_heads: number of heads h.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor on the attention logits; ``None`` means ``head_dim ** -0.5``.
        proj_bias: whether the output projection has a bias.
        qk_norm: makes a norm over the head width, for queries and for keys (Dehghani et al. 2023).
        attn_norm: makes a norm between the heads and the output projection (Shleifer et al. 2021).
        attn_drop: dropout rate of the attention weights.
        proj_drop: dropout rate of the output.
        rngs: its stream ``params`` is drawn from.
        dtype: of the computation; the softmax is taken in at least float32.
        param_dtype: of the parameters.

    Raises:
        VitportError: if ``dim`` does not divide among the heads.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        proj_bias: bool = True,
        qk_norm: NormLayer | None = None,
        attn_norm: NormLayer | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        linear = partial(make_linear, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.num_heads = num_heads
        self.head_dim = head_width(dim, num_heads)
        self.scale = self.head_dim**-0.5 if qk_scale is None else qk_scale
        self.attend = attend
        self.qkv = linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = nnx.identity if qk_norm is None else qk_norm(self.head_dim)
        self.k_norm = nnx.identity if qk_norm is None else qk_norm(self.head_dim)
        self.attn_drop = Dropout(attn_drop)
        self.norm = nnx.identity if attn_norm is None else attn_norm(dim)
        self.proj = linear(dim, dim, bias=proj_bias)
        self.proj_drop = Dropout(proj_drop)

    def __call__(self, x: jax.Array, *, rngs: DropoutKeys | None = None) -> jax.Array:
        """(B, N, D) -> (B, N, D); ``rngs`` is needed where dropout acts."""
        (qkv,) = unpacked(self.qkv, x, Part((3, self.num_heads, self.head_dim), cut=1))
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # (B, h, N, d) each
        q, k = self.q_norm(q), self.k_norm(k)
        x = self.attend(q, k, v, self.scale, partial(self.attn_drop, rngs=rngs))
        return self.proj_drop(self.proj(self.norm(x)), rngs=rngs)


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, scale: float, attn_drop: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Scaled dot-product attention of all heads: (B, h, N, d) each -> (B, N, h d)."""
    B, h, N, d = q.shape
    logits = (q * scale) @ k.swapaxes(-2, -1)  # (B, h, N, N)
    weights = attn_drop(softmax(logits))
    return (weights @ v).swapaxes(1, 2).reshape(B, N, h * d)


def attend_fused(
    q: jax.Array, k: jax.Array, v: jax.Array, scale: float, attn_drop: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """:func:`attend` without the weights, none of which are dropped: their sum over the values is divided instead.

    XLA makes one kernel of it on CPUs, and in float32 keeps one array of (B, h, N, N) for the backward pass, not three.
    """
    del attn_drop
    B, h, N, d = q.shape
    logits = at_least_float32((q * scale) @ k.swapaxes(-2, -1))  # (B, h, N, N)
    powers = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    heads = powers.astype(v.dtype) @ v  # (B, h, N, d)
    heads = (heads / powers.sum(axis=-1, keepdims=True)).astype(v.dtype)
    return heads.swapaxes(1, 2).reshape(B, N, h * d)


def attend_cudnn(
    q: jax.Array, k: jax.Array, v: jax.Array, scale: float, attn_drop: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """:func:`attend_fused` by cuDNN (Dao et al. 2022, FlashAttention), on NVIDIA GPUs from Ampere on, in 16 bits."""
    del attn_drop
    tokens = [part.swapaxes(1, 2) for part in (q, k, v)]  # (B, N, h, d) each
    heads = jax.nn.dot_product_attention(*tokens, scale=scale, implementation="cudnn")
    return heads.reshape(*heads.shape[:2], -1)  # (B, N, h d)


ATTENTION = {"written": attend, "fused": attend_fused, "cudnn": attend_cudnn}
"""By the names that training has for them."""


def set_attention(model: nnx.Module, attend: Callable[..., jax.Array]) -> None:
    """Lets every block of the model that drops no attention weights use this function, in place.

    Args:
        model: keeps its answers, up to rounding.
        attend: :func:`attend`, :func:`attend_fused`, :func:`attend_cudnn`, or one like them.
    """
    modules: list[Any] = [module for _, module in nnx.iter_modules(model)]
    for module in modules:
        if hasattr(module, "attend") and module.attn_drop.rate == 0:
            module.attend = attend


def head_width(dim: int, num_heads: int) -> int:
    """Width of one head.

    Raises:
        VitportError: if ``dim`` does not divide among the heads.
    """
    if dim % num_heads:
        raise VitportError(f"dim={dim} does not divide among num_heads={num_heads}: choose a multiple of {num_heads}.")
    return dim // num_heads


def softmax(logits: jax.Array) -> jax.Array:
    """Softmax over the last axis, taken in at least float32 as PyTorch's is; the dtype is kept."""
    return jax.nn.softmax(at_least_float32(logits), axis=-1).astype(logits.dtype)
