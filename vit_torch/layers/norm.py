"""The norm that a config selects."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from vit_spec import ViTConfig

NormLayer = Callable[[int], nn.Module]
"""Makes a norm over a last axis of the given width: tells a layer which norm to use."""


def make_layer_norm(width: int, eps: float, bias: bool = True) -> nn.Module:
    """LayerNorm (Ba et al. 2016) over the last axis, ``(..., width)``."""
    return nn.LayerNorm(width, eps=eps, bias=bias)


def make_norm(config: ViTConfig, width: int) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last axis, ``(..., width)``.

    Statistics are computed in at least float32, the variance as the mean squared distance from the mean.
    """
    if config.norm == "rmsnorm":
        return nn.RMSNorm(width, eps=config.norm_eps)
    return make_layer_norm(width, config.norm_eps, config.norm_bias)
