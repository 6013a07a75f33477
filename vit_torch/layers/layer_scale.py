"""A learned factor per channel (Touvron et al. 2021, "Going deeper with image transformers", section 2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LayerScale(nn.Module):
    """``x * gamma``.

    Args:
        dim: number of channels.
        initial: initial value of every factor.
    """

    def __init__(self, dim: int, initial: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """(..., D) -> (..., D)."""
        return x * self.gamma
