"""Multi-head self-attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.constant import make_constant
from vit_jax.layers.differential import Difference
from vit_jax.layers.dropout import Dropout, DropoutKeys
from vit_jax.layers.initialization import Init, make_linear, make_zeros
from vit_jax.layers.norm import NormLayer
from vit_jax.layers.qkv import project_qkv
from vit_jax.layers.xla import kernels
from vit_jax.layers.xla.attention import scaled_dot_product_attention, softmax
from vit_spec import VitportError
from vit_spec.vit.relative import count_offsets, shares


class Attention(nnx.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2), every step explicit.

    Args:
        dim: width D of the tokens; a multiple of ``num_heads``.
        num_heads: number of heads h.
        qkv_bias: whether queries, keys and values have a bias.
        qv_bias: whether queries and values have one, and keys none.
        relative_grid: rows and columns of the patches whose relative positions have biases in a table
            (:mod:`vit_spec.vit.relative`); ``None`` for no such table.
        relative_class: whether it has biases for a class token before the patches too.
        rel_pos: computes biases by relative position (:mod:`vit_jax.layers.relative`).
        qk_scale: factor on the attention logits; ``None`` means ``head_dim ** -0.5``.
        proj_bias: whether the output projection has a bias.
        qk_norm: makes a norm over the head width, for queries and for keys (Dehghani et al. 2023).
        difference: makes the attention differential (:mod:`vit_jax.layers.differential`).
        rotary: turns queries and keys after their norms (:mod:`vit_jax.layers.rotary`).
        attn_norm: makes a norm between the heads and the output projection (Shleifer et al. 2021).
        attn_drop: dropout rate of the attention weights.
        proj_drop: dropout rate of the output.
        init: random numbers and dtypes; the softmax is computed in at least float32.

    Raises:
        VitportError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qv_bias: bool = False,
        relative_grid: tuple[int, int] | None = None,
        relative_class: bool = True,
        rel_pos: Callable[[], Array] | None = None,
        qk_scale: float | None = None,
        proj_bias: bool = True,
        qk_norm: NormLayer | None = None,
        difference: Difference | None = None,
        rotary: Callable[[Array], Array] | None = None,
        attn_norm: NormLayer | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        *,
        init: Init,
    ) -> None:
        self.num_heads = num_heads
        self.head_dim = head_width(dim, num_heads)
        qk_dim = self.head_dim if difference is None else difference.half_dim
        self.scale = qk_dim**-0.5 if qk_scale is None else qk_scale
        self.attend = attend
        self.q_bias = make_zeros(dim, init=init) if qv_bias else None
        self.v_bias = make_zeros(dim, init=init) if qv_bias else None
        self.relative_class = relative_class
        offsets = None if relative_grid is None else count_offsets(relative_grid, relative_class)
        self.relative_position_bias_table = None if offsets is None else make_zeros(offsets, num_heads, init=init)
        self.shares = make_constant(shares(relative_grid)) if relative_grid is not None else None
        self.qkv = make_linear(dim, 3 * dim, bias=qkv_bias, init=init)
        self.q_norm = nnx.identity if qk_norm is None else qk_norm(qk_dim)
        self.k_norm = nnx.identity if qk_norm is None else qk_norm(qk_dim)
        self.difference = difference
        self.rel_pos = rel_pos
        self.rotary = nnx.identity if rotary is None else rotary
        self.attn_drop = Dropout(attn_drop)
        self.norm = nnx.identity if attn_norm is None else attn_norm(dim)
        self.proj = make_linear(dim, dim, bias=proj_bias, init=init)
        self.proj_drop = Dropout(proj_drop)
        self.dtype = init.dtype

    def __call__(self, x: Float[Array, "B N D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """(B, N, D) -> (B, N, D); ``rngs`` is required if dropout is active."""
        q, k, v = project_qkv(self.qkv, x, self.num_heads, self.head_dim)  # (B, h, N, d) each
        if self.q_bias is not None and self.v_bias is not None:
            q, v = q + self._by_head(self.q_bias[...]), v + self._by_head(self.v_bias[...])
        if self.difference is not None:
            q, k = self.difference.halves(q), self.difference.halves(k)
        q, k = self.rotary(self.q_norm(q)), self.rotary(self.k_norm(k))
        if self.difference is not None:
            q, k, v = self.difference.doubled(q, k, v)
        x = self.attend(q, k, v, self.scale, partial(self.attn_drop, rngs=rngs), self.bias())
        if self.difference is not None:
            x = self.difference(x)
        return self.proj_drop(self.proj(self.norm(x)), rngs=rngs)

    def bias(self) -> Float[Array, "1 h N N"] | None:
        """What is added to the logits: the bias by relative position, if the layer has one."""
        if self.rel_pos is not None:
            return self.rel_pos()
        if self.relative_position_bias_table is None or self.shares is None:
            return None
        table = self.relative_position_bias_table[...].astype(self.dtype)  # (offsets, h)
        patches = table[self.shares[:, None] - self.shares[:] + self.shares[-1]]  # (P, P, h)
        if not self.relative_class:
            return patches.transpose(2, 0, 1)[None]
        from_class, to_class, own = table[-3, None, None], table[-2, None, None], table[-1, None, None]  # (1, 1, h)
        P, _, h = patches.shape
        first = jnp.concatenate([own, jnp.broadcast_to(from_class, (1, P, h))], axis=1)
        others = jnp.concatenate([jnp.broadcast_to(to_class, (P, 1, h)), patches], axis=1)
        return jnp.concatenate([first, others], axis=0).transpose(2, 0, 1)[None]

    def _by_head(self, bias: Float[Array, " D"]) -> Float[Array, "h 1 d"]:
        return bias.astype(self.dtype).reshape(self.num_heads, 1, self.head_dim)


def attend(
    q: Float[Array, "B h N d"],
    k: Float[Array, "B h N d"],
    v: Float[Array, "B h N d"],
    scale: float | Float[Array, "#B #h 1 1"],
    drop: Callable[[Array], Array],
    bias: Float[Array, "#W #h #N #N"] | None = None,
) -> Float[Array, "B N h*d"]:
    """Scaled dot-product attention of all heads: (B, h, N, d) each -> (B, N, h d), heads side by side.

    Args:
        q, k, v: queries, keys and values.
        scale: factor on the logits; an array, such as one factor per head, is (B, h, 1, 1) or broadcasts to it.
        drop: applied to the attention weights, (B, h, N, N).
        bias: added to the logits, for relative positions and masks; (W, h, N, N) or broadcasts to it, dtype as ``q``.
            Its first axis may also be a divisor W of B, as for the W windows of each image: it is repeated.
    """
    B, h, N, d = q.shape
    logits = (q * scale) @ k.swapaxes(-2, -1)  # (B, h, N, N)
    if bias is not None:
        logits = _add_bias(logits, bias)
    weights = drop(softmax(logits))
    return (weights @ v).swapaxes(1, 2).reshape(B, N, h * d)


def attend_fused(
    q: Float[Array, "B h N d"],
    k: Float[Array, "B h N d"],
    v: Float[Array, "B h N d"],
    scale: float | Float[Array, "#B #h 1 1"],
    drop: Callable[[Array], Array],
    bias: Float[Array, "#W #h #N #N"] | None = None,
) -> Float[Array, "B N h*d"]:
    """:func:`attend` with normalization after the values: attention weights are not stored, and none are dropped.

    XLA compiles it to one kernel on CPUs; in float32 the backward pass keeps one array (B, h, N, N) instead of three.
    """
    del drop
    B, h, N, d = q.shape
    q, scale = _scalar(q, scale)
    bias = None if bias is None else _repeated(bias, B)
    heads = scaled_dot_product_attention(q, k, v, bias, scale)  # (B, h, N, d)
    return heads.swapaxes(1, 2).reshape(B, N, h * d)


def attend_cudnn(
    q: Float[Array, "B h N d"],
    k: Float[Array, "B h N d"],
    v: Float[Array, "B h N d"],
    scale: float | Float[Array, "#B #h 1 1"],
    drop: Callable[[Array], Array],
    bias: Float[Array, "#W #h #N #N"] | None = None,
) -> Float[Array, "B N h*d"]:
    """:func:`attend_fused` by cuDNN (FlashAttention, Dao et al. 2022): NVIDIA GPUs from Ampere on, 16-bit dtypes.

    Odd numbers of tokens are padded by one. cuDNN masks with finite numbers.
    """
    del drop
    return _attend_by(kernels.cudnn, q, k, v, scale, bias)


def attend_flash(
    q: Float[Array, "B h N d"],
    k: Float[Array, "B h N d"],
    v: Float[Array, "B h N d"],
    scale: float | Float[Array, "#B #h 1 1"],
    drop: Callable[[Array], Array],
    bias: Float[Array, "#W #h #N #N"] | None = None,
) -> Float[Array, "B N h*d"]:
    """:func:`attend_fused` by JAX's kernel for TPUs (FlashAttention, Dao et al. 2022); head widths up to 128.

    Tokens are padded to a multiple of 128. No array (B, h, N, N) is in memory but a bias.
    """
    del drop
    return _attend_by(kernels.flash, q, k, v, scale, bias)


ATTENTION = {"explicit": attend, "fused": attend_fused, "cudnn": attend_cudnn, "flash": attend_flash}
"""The attention functions by the names that recipes use."""


def set_attention(model: nnx.Module, attend: Callable[..., Array]) -> None:
    """Sets the attention function of every block without attention dropout, in place.

    Args:
        model: its outputs stay the same, up to rounding.
        attend: :func:`attend`, :func:`attend_fused`, :func:`attend_cudnn`, :func:`attend_flash`, or one with their
            signature.
    """
    modules: list[Any] = [module for _, module in nnx.iter_modules(model)]
    for module in modules:
        if hasattr(module, "attend") and module.attn_drop.rate == 0:
            module.attend = attend


def head_width(dim: int, num_heads: int) -> int:
    """Width of one head.

    Raises:
        VitportError: if ``dim`` is not a multiple of ``num_heads``.
    """
    if dim % num_heads:
        raise VitportError(f"dim={dim} is not divisible by num_heads={num_heads}: choose a multiple of {num_heads}.")
    return dim // num_heads


def _attend_by(
    kernel: kernels.Kernel,
    q: Float[Array, "B h N d"],
    k: Float[Array, "B h N d"],
    v: Float[Array, "B h N d"],
    scale: float | Float[Array, "#B #h 1 1"],
    bias: Float[Array, "#W #h #N #N"] | None,
) -> Float[Array, "B N h*d"]:
    """A kernel's attention, with a scale and a bias as kernels take them."""
    B, h, N, d = q.shape
    q, scale = _scalar(q, scale)
    if bias is not None:
        bias = _repeated(jnp.broadcast_to(bias, (*bias.shape[:2], N, N)), B)
    return kernel(q, k, v, bias, scale).swapaxes(1, 2).reshape(B, N, h * d)


def _add_bias(logits: Float[Array, "B h N N"], bias: Float[Array, "#W #h #N #N"]) -> Float[Array, "B h N N"]:
    """``logits + bias``, with its first axis repeated along the batch."""
    B, h, N, _ = logits.shape
    return (logits.reshape(-1, bias.shape[0], h, N, N) + bias).reshape(B, h, N, N)


def _repeated(bias: Float[Array, "#W #h #N #N"], batch: int) -> Float[Array, "#B #h #N #N"]:
    """The bias with its first axis repeated along the batch, or 1."""
    return bias if bias.shape[0] == 1 else jnp.tile(bias, (batch // bias.shape[0], 1, 1, 1))


def _scalar(q: Array, scale: float | Array) -> tuple[Array, float]:
    """Queries and a scale that is a number, as kernels need it: an array is multiplied into the queries."""
    return (q, scale) if isinstance(scale, float | int) else (q * scale, 1.0)
