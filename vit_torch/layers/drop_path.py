"""Stochastic depth (Huang et al. 2016): drops a residual branch for some images of a batch."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from vit_spec import VitportError


def drop_path(x: Float[Tensor, "B ..."], rate: float) -> Float[Tensor, "B ..."]:
    """Sets each sample, ``x[b]``, to zero with probability ``rate`` and divides the others by ``1 - rate``.

    The expected value is ``x``; shape (B, ...) and dtype are kept.
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
            raise VitportError(f"DropPath's rate must be in [0, 1); got {rate}.")
        self.rate = rate

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """(B, ...) -> (B, ...)."""
        if self.rate == 0.0 or not self.training:
            return x
        return drop_path(x, self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
