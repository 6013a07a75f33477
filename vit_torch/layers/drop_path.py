"""Stochastic depth (Huang et al. 2016): a residual branch is left out for some pictures of a batch."""

from __future__ import annotations

import torch
from torch import nn

from vit_spec import VitportError


def drop_path(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Sets each sample, ``x[b]``, to zero with probability ``rate`` and divides the others by ``1 - rate``.

    The expectation stays ``x``; shape (B, ...) and dtype are kept.
    """
    keep = 1.0 - rate
    mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)  # (B, 1, ...)
    return x / keep * mask


class DropPath(nn.Module):
    """:func:`drop_path` in training mode; the identity in evaluation and at rate 0.

    Args:
        rate: probability in [0, 1) that a sample is dropped.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise VitportError(f"DropPath rate={rate} is no rate: give a number from 0 up to, not including, 1.")
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ...) -> (B, ...)."""
        if self.rate == 0.0 or not self.training:
            return x
        return drop_path(x, self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
