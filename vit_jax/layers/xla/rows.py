"""Layers and sums over the last axis, computed on the rows of a matrix, as XLA computes them best on CPUs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vit_jax.layers.xla.platform import platform


class Linear(nnx.Linear):
    """``x @ kernel + bias``; kernel (inputs, outputs)."""

    def __call__(self, inputs: Float[Array, "*batch _"], out_sharding: Any = None) -> Float[Array, "*batch _"]:
        """(..., inputs) -> (..., outputs)."""
        if out_sharding is not None:  # its axes are those of the result, not of rows
            return super().__call__(inputs, out_sharding)
        x = super().__call__(as_rows(inputs))
        return x.reshape(*inputs.shape[:-1], x.shape[-1])


class LayerNorm(nnx.Module):
    """LayerNorm (Ba et al. 2016).

    Statistics are computed in at least float32. The variance is the mean squared distance from the mean, since the mean
    square minus the squared mean cancels where the mean is far from zero.

    Args:
        width: D.
        dtype: of the result.
        param_dtype: of the parameters.
        eps: added to the variance.
        bias: whether there is a bias beside the scale.
    """

    def __init__(
        self, width: int, dtype: DTypeLike, param_dtype: DTypeLike, *, eps: float = 1e-5, bias: bool = True
    ) -> None:
        self.epsilon = eps
        self.scale = nnx.Param(jnp.ones(width, param_dtype))
        self.bias = nnx.Param(jnp.zeros(width, param_dtype)) if bias else None
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """(..., D) -> (..., D)."""
        rows = at_least_float32(as_rows(x))
        centred = rows - rows.mean(axis=-1, keepdims=True)
        # First divided, then scaled: the product of the two factors would be another matrix, computed and stored for
        # the backward pass.
        y = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + self.epsilon)
        y = y * self.scale[...]
        if self.bias is not None:
            y = y + self.bias[...]
        return y.astype(self.dtype).reshape(x.shape)


class RMSNorm(nnx.Module):
    """RMSNorm (Zhang & Sennrich 2019). The mean square is computed in at least float32.

    Args:
        width: D.
        dtype: of the result.
        param_dtype: of the parameter.
        eps: added to the mean square.
    """

    def __init__(self, width: int, dtype: DTypeLike, param_dtype: DTypeLike, *, eps: float = 1e-5) -> None:
        self.epsilon = eps
        self.scale = nnx.Param(jnp.ones(width, param_dtype))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """(..., D) -> (..., D)."""
        rows = at_least_float32(as_rows(x))
        y = rows * jax.lax.rsqrt(jnp.square(rows).mean(axis=-1, keepdims=True) + self.epsilon) * self.scale[...]
        return y.astype(self.dtype).reshape(x.shape)


def add(x: Float[Array, "*batch D"], branch: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """``x + branch``, (..., D) each."""
    return (as_rows(x) + as_rows(branch)).reshape(x.shape)


def as_rows(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """(B, N, D) -> (B N, D) on CPUs; ``x`` itself on other backends and for other numbers of axes.

    With 3-D inputs XLA:CPU computes a kernel's gradient from a transposed copy of the output gradient, and fuses into
    every such copy all residual sums since the last block, so that the cost of the backward pass grows with the square
    of the depth. 2-D inputs avoid both. TPUs pad N to multiples of 8: there the reshape would copy.
    """
    return x.reshape(-1, x.shape[-1]) if x.ndim == 3 and platform() == "cpu" else x


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Half precision as float32, for operations that lose too much in it."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
