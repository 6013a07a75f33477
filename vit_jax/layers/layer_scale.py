"""A learned factor per channel (Touvron et al. 2021, "Going deeper with image transformers", section 2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


class LayerScale(nnx.Module):
    """``x * gamma``.

    Args:
        dim: number of channels.
        initial: value of every factor at the start.
        dtype: of the product.
        param_dtype: of ``gamma``.
    """

    def __init__(
        self, dim: int, initial: float = 1e-5, *, dtype: DTypeLike = jnp.float32, param_dtype: DTypeLike = jnp.float32
    ) -> None:
        self.gamma = nnx.Param(jnp.full((dim,), initial, param_dtype))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., D) -> (..., D)."""
        return x.astype(self.dtype) * self.gamma[...].astype(self.dtype)
