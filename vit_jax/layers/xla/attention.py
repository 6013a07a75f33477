"""What PyTorch's attention kernels do, in the form that XLA computes best on CPUs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vit_jax.layers.xla.rows import at_least_float32


def scaled_dot_product_attention(
    q: Float[Array, "B h N d"],
    k: Float[Array, "B h N d"],
    v: Float[Array, "B h N d"],
    bias: Float[Array, "#B #h #N #N"] | None,
    scale: float,
) -> Float[Array, "B h N d"]:
    """``softmax(scale * q @ k.T + bias) @ v``, normalized after the product with the values."""
    logits = at_least_float32((q * scale) @ k.swapaxes(-2, -1))  # (B, h, N, N)
    if bias is not None:
        logits = logits + bias
    powers = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    heads = powers.astype(v.dtype) @ v
    return (heads / powers.sum(axis=-1, keepdims=True)).astype(v.dtype)


def softmax(logits: Float[Array, "*batch N"]) -> Float[Array, "*batch N"]:
    """Softmax over the last axis, computed in at least float32 as PyTorch does; the dtype is kept."""
    return jax.nn.softmax(at_least_float32(logits), axis=-1).astype(logits.dtype)


def normalize(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Vectors of length 1, and 0 where they are 0, computed in at least float32; the dtype is kept."""
    z = at_least_float32(x)
    # Not divided by the length: that has no derivative at 0, where keys of padding are.
    return (z * jax.lax.rsqrt(jnp.maximum(jnp.square(z).sum(axis=-1, keepdims=True), 1e-24))).astype(x.dtype)
