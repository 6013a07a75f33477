"""Blocks and what they are made of in numpy and float64, written from the papers.

They are independent of the two frameworks' models and of ``conversion``, because verification compares with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import erf

Activation = Callable[[np.ndarray], np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))``, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


ACTIVATIONS: dict[str, Activation] = {
    "gelu": lambda x: 0.5 * x * (1.0 + erf(x * math.sqrt(0.5))),
    "gelu_tanh": lambda x: 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x))),
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "silu": lambda x: x * sigmoid(x),
    "relu": lambda x: np.maximum(x, 0.0),
}
"""Hendrycks & Gimpel 2016, section 2, and the field's other names."""


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Linear:
    """``x @ kernel + bias``: (..., I) -> (..., O)."""

    kernel: np.ndarray  # (I, O)
    bias: np.ndarray | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = x @ self.kernel
        return y if self.bias is None else y + self.bias

    def split(self, widths: Sequence[int]) -> list[Linear]:
        """The layers whose outputs are concatenated in this one's."""
        ends = np.cumsum(widths)[:-1]
        kernels = np.split(self.kernel, ends, axis=1)
        biases = [None] * len(widths) if self.bias is None else np.split(self.bias, ends)
        return [Linear(kernel, bias) for kernel, bias in zip(kernels, biases, strict=True)]


@dataclass(frozen=True)
class Norm:
    """LayerNorm (Ba et al. 2016, equation 4), or RMSNorm (Zhang & Sennrich 2019, equation 4): (..., D) -> (..., D)."""

    scale: np.ndarray  # (D,)
    bias: np.ndarray | None
    eps: float
    centred: bool = True

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.centred:
            x = x - x.mean(axis=-1, keepdims=True)
        y = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps) * self.scale
        return y if self.bias is None else y + self.bias


def same(x: np.ndarray) -> np.ndarray:
    """Stands for a layer that a model does not have."""
    return x


Layer = Callable[[np.ndarray], np.ndarray]
Attending = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Queries from (B, N, D), keys and values from (B, M, D) -> (B, N, D)."""


@dataclass(frozen=True)
class Block:
    """Equations 2 and 3 of Dosovitskiy et al. 2021, with norms where ``order`` has them (``vit_spec.BlockKind``)."""

    norm1: Layer
    attention: Attending
    scale1: np.ndarray | float
    norm2: Layer
    mlp: Layer
    scale2: np.ndarray | float
    order: str = "sequential"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(B, N, D) -> (B, N, D)."""
        if self.order == "original":
            x = self.norm1(x + self.scale1 * self.attention(x, x))
            return self.norm2(x + self.scale2 * self.mlp(x))
        if self.order == "post_norm":
            x = x + self.scale1 * self.norm1(self.attention(x, x))
            return x + self.scale2 * self.norm2(self.mlp(x))
        y = self.norm1(x)
        x = x + self.scale1 * self.attention(y, y)
        return x + self.scale2 * self.mlp(self.norm2(x))


@dataclass(frozen=True)
class BranchedBlock:
    """Touvron et al. 2022, "Three things everyone should know about Vision Transformers", section 3: several attentions
    side by side, then several MLPs, each as norm, layer and scale."""

    attentions: Sequence[tuple[Layer, Attending, np.ndarray | float]]
    mlps: Sequence[tuple[Layer, Layer, np.ndarray | float]]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(B, N, D) -> (B, N, D)."""
        normed = [(norm(x), attention, scale) for norm, attention, scale in self.attentions]
        x = x + sum(scale * attention(y, y) for y, attention, scale in normed)
        return x + sum(scale * mlp(norm(x)) for norm, mlp, scale in self.mlps)


@dataclass(frozen=True)
class ParallelBlock:
    """Dehghani et al. 2023, section 2: one layer gives hidden vector, queries, keys and values."""

    norm: Layer
    hidden: Linear
    attention: Attending
    mlp_out: Linear
    act: Activation
    scale: np.ndarray | float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(B, N, D) -> (B, N, D)."""
        y = self.norm(x)
        return x + self.scale * (self.attention(y, y) + self.mlp_out(self.act(self.hidden(y))))


@dataclass(frozen=True)
class AttentionPool:
    """Lee et al. 2019, section 3.2, as Zhai et al. 2022 use it."""

    latent: np.ndarray  # (1, D)
    attention: Attending
    norm: Layer
    mlp: Layer

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """(B, N, D) -> (B, D)."""
        asking = np.broadcast_to(self.latent, (len(tokens), *self.latent.shape))  # (B, 1, D)
        y = self.attention(asking, tokens)
        return (y + self.mlp(self.norm(y)))[:, 0]
