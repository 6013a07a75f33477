"""Layers and sums over the last axis, in the form that XLA computes best on CPUs: rows of a matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


class Linear(nnx.Linear):
    """``x @ kernel + bias``; kernel (inputs, outputs)."""

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """(..., inputs) -> (..., outputs)."""
        if out_sharding is not None:  # of the result as it is
            return super().__call__(inputs, out_sharding)
        x = super().__call__(as_rows(inputs))
        return x.reshape(*inputs.shape[:-1], x.shape[-1])


class LayerNorm(nnx.Module):
    """LayerNorm (Ba et al. 2016). Statistics are taken in at least float32, the variance as the mean squared distance
    from the mean: mean square less squared mean would cancel where the mean is far from zero.

    Args:
        width: D.
        epsilon: added to the variance.
        use_bias: whether there is a bias beside the scale.
        dtype: of the result.
        param_dtype: of the parameters.
    """

    def __init__(self, width: int, epsilon: float, use_bias: bool, dtype: DTypeLike, param_dtype: DTypeLike) -> None:
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(width, param_dtype))
        self.bias = nnx.Param(jnp.zeros(width, param_dtype)) if use_bias else None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., D) -> (..., D)."""
        rows = at_least_float32(as_rows(x))
        centred = rows - rows.mean(axis=-1, keepdims=True)
        # Divided first and scaled then: the product of both factors would be a matrix, made and kept for the backward
        # pass.
        y = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + self.epsilon)
        y = y * self.scale[...]
        if self.bias is not None:
            y = y + self.bias[...]
        return y.astype(self.dtype).reshape(x.shape)


class RMSNorm(nnx.Module):
    """RMSNorm (Zhang & Sennrich 2019). The mean square is taken in at least float32.

    Args:
        width: D.
        epsilon: added to the mean square.
        dtype: of the result.
        param_dtype: of the parameter.
    """

    def __init__(self, width: int, epsilon: float, dtype: DTypeLike, param_dtype: DTypeLike) -> None:
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(width, param_dtype))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., D) -> (..., D)."""
        rows = at_least_float32(as_rows(x))
        y = rows * jax.lax.rsqrt(jnp.square(rows).mean(axis=-1, keepdims=True) + self.epsilon) * self.scale[...]
        return y.astype(self.dtype).reshape(x.shape)


def add(x: jax.Array, branch: jax.Array) -> jax.Array:
    """``x + branch``, (..., D) each: what the residual stream is made of."""
    return (as_rows(x) + as_rows(branch)).reshape(x.shape)


def as_rows(x: jax.Array) -> jax.Array:
    """(B, N, D) -> (B N, D) on CPUs; elsewhere, and where there are other axes, ``x`` as it is.

    Of a product with (B, N, D), XLA's CPU compiler makes the kernel's gradient from a transposed copy of the result's
    gradient, and fuses into each such copy all sums along the residual stream since the last block: together a backward
    pass whose cost grows with the square of the depth. Of matrices it makes neither. TPUs lay N out in multiples of
    8, so that there the same reshape would move everything.
    """
    return x.reshape(-1, x.shape[-1]) if x.ndim == 3 and jax.default_backend() == "cpu" else x


def at_least_float32(x: jax.Array) -> jax.Array:
    """Half precision made float32, for what loses too much in it."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
