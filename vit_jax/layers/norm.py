"""The norm that a config selects."""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx

from vit_jax.layers.initialization import Init
from vit_jax.layers.xla.rows import LayerNorm, RMSNorm
from vit_spec import ViTConfig

NormLayer = Callable[[int], nnx.Module]
"""Makes a norm over a last axis of the given width: tells a layer which norm to use."""


def make_layer_norm(width: int, eps: float, bias: bool = True, *, init: Init) -> LayerNorm:
    """LayerNorm (Ba et al. 2016) over the last axis, ``(..., width)``."""
    return LayerNorm(width, init.dtype, init.param_dtype, eps=eps, bias=bias)


def make_norm(config: ViTConfig, width: int, *, init: Init) -> LayerNorm | RMSNorm:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last axis, ``(..., width)``.

    Statistics are computed in at least float32, the variance as the mean squared distance from the mean.
    """
    if config.norm == "rmsnorm":
        return RMSNorm(width, init.dtype, init.param_dtype, eps=config.norm_eps)
    return make_layer_norm(width, config.norm_eps, config.norm_bias, init=init)
