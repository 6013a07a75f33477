"""Attention in numpy and float64, written from the papers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vit_parity.semantics.layers import Layer, Linear, same, softmax

FACTORS = ("q1", "k1", "q2", "k2")
"""The vectors that the share of a second softmax is computed from."""
DIFFERENCE_EPS = 1e-5
"""Of the norm over each head of differential attention (section 3.1)."""


@dataclass(frozen=True)
class Difference:
    """What two softmaxes give, less a share of the second (Ye et al. 2024, "Differential Transformer", section 2.1)."""

    query1: np.ndarray
    key1: np.ndarray
    query2: np.ndarray
    key2: np.ndarray
    norm: Layer | None
    block: int
    """Counted from 0."""

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(B, h, N, d) each -> (B, h, N, d)."""
        begin = 0.8 - 0.6 * np.exp(-0.3 * self.block)
        share = np.exp(self.query1 @ self.key1) - np.exp(self.query2 @ self.key2) + begin
        assert self.norm is not None
        return self.norm(first - share * second) * (1.0 - begin)


@dataclass(frozen=True)
class Attention:
    """Multi-head attention (Vaswani et al. 2017, section 3.2)."""

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    heads: int
    scale: float
    query_norm: Layer = same
    key_norm: Layer = same
    turn: Layer = same
    """Rotary positions of queries and keys as heads, after their norms."""
    bias: np.ndarray | float = 0.0
    """Of the logits, (h, N, N)."""
    norm: Layer = same
    """Between the heads and ``out`` (Shleifer et al. 2021)."""
    difference: Difference | None = None

    def __call__(self, asking: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Queries from (B, N, D), keys and values from (B, M, D) -> (B, N, D)."""
        return self.out(self.norm(self.attend(self.query(asking), self.key(asked), self.value(asked))))

    def attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(B, N, D), (B, M, D), (B, M, D) -> (B, N, D), before ``norm`` and ``out``.

        Keys and values may have fewer heads, each for as many queries' heads in a row (Ainslie et al. 2023, "GQA").
        """
        width = q.shape[-1] // self.heads
        q, k, v = (x.reshape(*x.shape[:2], -1, width).transpose(0, 2, 1, 3) for x in (q, k, v))  # (B, h, ., d)
        k, v = (np.repeat(x, self.heads // x.shape[1], axis=1) for x in (k, v))
        if self.difference is not None:
            width = q.shape[-1] // 2
            parts = (slice(None, width), slice(width, None))
            first, second = (
                softmax(self.scale * self.query_norm(q[..., part]) @ self.key_norm(k[..., part]).swapaxes(2, 3)) @ v
                for part in parts
            )
            y = self.difference(first, second).transpose(0, 2, 1, 3)
            return y.reshape(*y.shape[:2], -1)
        q, k = self.turn(self.query_norm(q)), self.turn(self.key_norm(k))
        logits = self.scale * (q @ k.transpose(0, 1, 3, 2)) + self.bias  # (B, h, N, M)
        y = (softmax(logits) @ v).transpose(0, 2, 1, 3)  # (B, N, h, d)
        return y.reshape(*y.shape[:2], -1)
