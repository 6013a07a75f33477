"""The norm that a config asks for."""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
from jax.typing import DTypeLike

from vit_jax.rows import LayerNorm, RMSNorm
from vit_spec import ViTConfig

NormLayer = Callable[[int], nnx.Module]
"""Makes a norm over the last axis, of the given width: how a layer is told which norm to use."""


def make_norm(
    config: ViTConfig, width: int, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike
) -> LayerNorm | RMSNorm:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last axis, ``(..., width)``.

    Statistics are taken in at least float32, the variance as the mean squared distance from the mean.
    """
    if config.norm == "rmsnorm":
        return RMSNorm(width, epsilon=config.norm_eps, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
    return LayerNorm(
        width,
        epsilon=config.norm_eps,
        use_bias=config.norm_bias,
        # The fast form, mean square less squared mean, cancels where the mean is far from zero.
        use_fast_variance=False,
        rngs=rngs,
        dtype=dtype,
        param_dtype=param_dtype,
    )
