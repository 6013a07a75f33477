"""Layers and sums over the last axis, computed on matrices: Flax's own but for the shape that XLA is shown."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx


class Linear(nnx.Linear):
    """``x @ kernel + bias``; kernel (inputs, outputs)."""

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """(..., inputs) -> (..., outputs)."""
        x = super().__call__(as_rows(inputs), out_sharding)
        return x.reshape(*inputs.shape[:-1], x.shape[-1])


class LayerNorm(nnx.LayerNorm):
    """LayerNorm (Ba et al. 2016)."""

    def __call__(self, x: jax.Array, **options: Any) -> jax.Array:
        """(..., D) -> (..., D)."""
        return super().__call__(as_rows(x), **options).reshape(x.shape)


class RMSNorm(nnx.RMSNorm):
    """RMSNorm (Zhang & Sennrich 2019)."""

    def __call__(self, x: jax.Array, **options: Any) -> jax.Array:
        """(..., D) -> (..., D)."""
        return super().__call__(as_rows(x), **options).reshape(x.shape)


def add(x: jax.Array, branch: jax.Array) -> jax.Array:
    """``x + branch``, (..., D) each: what the residual stream is made of."""
    return (as_rows(x) + as_rows(branch)).reshape(x.shape)


def as_rows(x: jax.Array) -> jax.Array:
    """(..., D) -> (rows, D) on CPUs; elsewhere ``x`` as it is.

    Of a product with (B, N, D), XLA's CPU compiler makes the kernel's gradient from a transposed copy of the result's
    gradient, and fuses into each such copy all sums along the residual stream since the last block: together a backward
    pass whose cost grows with the square of the depth. Of matrices it makes neither. TPUs lay N out in multiples of
    8, so that there the same reshape would move everything.
    """
    return x.reshape(-1, x.shape[-1]) if jax.default_backend() == "cpu" else x
