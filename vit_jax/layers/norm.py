"""The norm that a config asks for."""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
from jax.typing import DTypeLike

from vit_jax.layers.xla.rows import LayerNorm, RMSNorm
from vit_spec import ViTConfig

NormLayer = Callable[[int], nnx.Module]
"""Makes a norm over the last axis, of the given width: how a layer is told which norm to use."""


def make_norm(
    config: ViTConfig, width: int, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike
) -> LayerNorm | RMSNorm:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last axis, ``(..., width)``."""
    del rngs  # a norm's first values are ones and zeros
    if config.norm == "rmsnorm":
        return RMSNorm(width, config.norm_eps, dtype, param_dtype)
    return LayerNorm(width, config.norm_eps, config.norm_bias, dtype, param_dtype)
