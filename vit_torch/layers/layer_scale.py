"""A learned factor per channel (Touvron et al. 2021, "Going deeper with image transformers", section 2)."""

from __future__ import annotations

import torch
from torch import nn


class LayerScale(nn.Module):
    """``x * gamma``.

    Args:
        dim: number of channels.
        initial: value of every factor at the start.
    """

    def __init__(self, dim: int, initial: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., D)."""
        return x * self.gamma
