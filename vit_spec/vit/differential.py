"""Numbers of differential attention (Ye et al. 2024, "Differential Transformer", section 2.1, and its code)."""

from __future__ import annotations

import math

EPS = 1e-5
"""Epsilon of the RMSNorm over each head."""
STD = 0.1
"""Standard deviation of the vectors that the share of the second softmax is learned by, at the start."""


def initial_share(block: int) -> float:
    """The share of the second softmax that is subtracted before anything is learned; ``block`` counts from 0."""
    return 0.8 - 0.6 * math.exp(-0.3 * block)
