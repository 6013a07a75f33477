"""A learned factor per channel (Touvron et al. 2021, "Going deeper with image transformers", section 2)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.initialization import Init


class LayerScale(nnx.Module):
    """``x * gamma``.

    Args:
        dim: number of channels.
        initial: initial value of every factor.
        init: dtypes.
    """

    def __init__(self, dim: int, initial: float = 1e-5, *, init: Init) -> None:
        self.gamma = nnx.Param(jnp.full((dim,), initial, init.param_dtype))
        self.dtype = init.dtype

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """(..., D) -> (..., D)."""
        return x.astype(self.dtype) * self.gamma[...].astype(self.dtype)
