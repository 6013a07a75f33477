"""A model that can be replayed in numpy, as it is or as it may have been computed, and the layers of any family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from vit_parity.points import path_in_block
from vit_spec import Config

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A matrix product: (..., i, j) and (..., j, k) -> (..., i, k)."""
Linear = Callable[[np.ndarray, np.ndarray, np.ndarray | float], np.ndarray]
"""A linear layer: (..., I), weight (O, I) and bias (O,), or 0 without one -> (..., O)."""


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
    """A linear layer by its definition."""
    return x @ weight.T + bias


C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class ReplayedModel(Generic[C]):
    """A model as it is, or as it may have been computed."""

    config: C
    params: Mapping[str, np.ndarray]
    """Canonical name → float64."""
    images: np.ndarray
    """(B, H, W, C)."""
    linear: Linear = linear
    """Computes the linear layers, and the patch embedding's convolution, which is one."""
    attention_product: Product = np.matmul
    """Multiplies queries with keys, and attention weights with values."""
    coarse: float = 0.0
    """Unit roundoff of the dtype that those two round to on the way; 0 if they do not. If another order of summation
    moves a last bit, a number may move by twice this."""
    qkv_places: tuple[int, int, int] = (0, 1, 2)
    """Which parts of the joint layer are read as queries, keys and values."""
    heads_first: bool = False
    """Whether the joint layer's output holds q, k and v of each head together, instead of the heads of each part."""
    bare_prefix: bool = False
    """Whether prefix tokens get no rows of the position table."""
    deviations: frozenset[str] = frozenset()
    """What else is computed in another way, in words that the family's module knows."""
    skipped: frozenset[str] = frozenset()
    """Norms, layer scales and tanh (``pre_logits.act``) that are left out, by path; inside blocks by the path within
    the block: ``norm1`` and ``mlp.norm`` mean every block's, ``norm`` and ``patch_embed.norm`` one layer each."""
    blur: Callable[[np.ndarray], np.ndarray] | None = None
    """Perturbs every number that the replay reads or computes, to measure how much that matters."""

    def with_params(self, change: Callable[[str, np.ndarray], np.ndarray | None]) -> ReplayedModel[C]:
        """With every parameter replaced by ``change(name, array)``; ``None`` removes it."""
        new = {name: change(name, array) for name, array in self.params.items()}
        return replace(self, params={name: array for name, array in new.items() if array is not None})

    def with_param(self, name: str, array: np.ndarray) -> ReplayedModel[C]:
        """With one parameter replaced."""
        return replace(self, params=dict(self.params) | {name: array})

    def skips(self, at: str) -> bool:
        """Whether the layer at a path is left out."""
        return path_in_block(at) in self.skipped


def float64_params(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All of a checkpoint's weights in float64, in memory."""
    return {name: array.astype(np.float64) for name, array in params.items()}


class Replay:
    """One replay: the layers that every family has, and a record of their outputs."""

    def __init__(self, model: ReplayedModel, known: Mapping[str, np.ndarray]) -> None:
        self.config: Any = model.config
        self.params, self.model = model.params, model
        self.known = known
        self.found: dict[str, np.ndarray] = {}

    def run(
        self,
        forward: Callable[[Replay, str, np.ndarray], np.ndarray],
        stages: Sequence[str],
        stage: str | None,
    ) -> dict[str, np.ndarray]:
        """Compute the stages up to ``stage`` from the last known tokens before it, or the whole model."""
        last = len(stages) - 1 if stage is None else stages.index(stage)
        first = 0
        if stage is not None:
            tokens_known = [at for at in range(last) if stages[at] in self.known]
            first = tokens_known[-1] + 1 if tokens_known else 0
        x = self.known[stages[first - 1]].astype(np.float64) if first else np.zeros(0)
        for at in stages[first : last + 1]:
            if at == stage:
                self.found.clear()
            x = forward(self, at, x)
        return self.found

    def note(self, name: str, value: np.ndarray) -> np.ndarray:
        """Record an activation; returns the known one instead if there is one."""
        self.found[name] = value
        known = self.known.get(name)
        if known is not None and known.shape == value.shape:
            value = known.astype(np.float64)
        return value if self.model.blur is None else self.model.blur(value)

    def linear(self, at: str, x: np.ndarray) -> np.ndarray:
        """(..., in) -> (..., out)."""
        return self.model.linear(x, self.params[f"{at}.weight"], self.params.get(f"{at}.bias", 0.0))

    def norm(self, at: str, x: np.ndarray) -> np.ndarray:
        """(..., D) -> (..., D): LayerNorm or RMSNorm, as the config says."""
        if self.model.skips(at):
            return x
        if self.config.norm == "layernorm":
            x = x - x.mean(-1, keepdims=True)
        y = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config.norm_eps) * self.params[f"{at}.weight"]
        return y + self.params[f"{at}.bias"] if f"{at}.bias" in self.params else y
