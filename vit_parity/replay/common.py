"""A model that can be replayed in numpy, as it is or as it may have been computed, and the layers of any family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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

    def with_params(self, change: Callable[[str, np.ndarray], np.ndarray]) -> ReplayedModel[C]:
        """With every parameter replaced by ``change(name, array)``, whenever it is read."""
        return replace(self, params=_Changed(self.params, change))

    def without(self, gone: Callable[[str], bool]) -> ReplayedModel[C]:
        """Without the parameters of these names."""
        return replace(self, params=_Changed(self.params, lambda _, array: array, gone))

    def with_param(self, name: str, array: np.ndarray) -> ReplayedModel[C]:
        """With one parameter replaced, or one more."""
        return replace(self, params=_Changed(self.params, lambda _, own: own, added={name: array}))

    def skips(self, at: str) -> bool:
        """Whether the layer at a path is left out."""
        return path_in_block(at) in self.skipped


class _Changed(Mapping[str, np.ndarray]):
    """Parameters that are changed when they are read, and not kept: a stage reads only its own."""

    def __init__(
        self,
        params: Mapping[str, np.ndarray],
        change: Callable[[str, np.ndarray], np.ndarray],
        gone: Callable[[str], bool] = lambda _: False,
        added: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._params, self._change, self._gone, self._added = params, change, gone, added or {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._added:
            return self._added[name]
        if self._gone(name):
            raise KeyError(name)
        return self._change(name, self._params[name])

    def __contains__(self, name: object) -> bool:
        return name in self._added or (name in self._params and not self._gone(str(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*(name for name in self._params if not self._gone(name)), *self._added)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def float64_params(params: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """All of a checkpoint's weights, in float64 whenever one is read."""
    return _Changed(dict(params), lambda _, array: array.astype(np.float64))


Seen = Callable[[str, np.ndarray], None]
"""Takes the name of an activation and its value, (…) float64, as soon as it is computed."""


class Replay:
    """One replay: the layers that every family has.

    Args:
        model: the model.
        known: activations that are taken as they are wherever a later one is computed from them.
        seen: is given each activation; none is kept here.
    """

    def __init__(self, model: ReplayedModel, known: Mapping[str, np.ndarray], seen: Seen) -> None:
        self.config: Any = model.config
        self.params, self.model = model.params, model
        self.known = known
        self.seen = seen

    def note(self, name: str, value: np.ndarray) -> np.ndarray:
        """Show an activation; returns the known one instead if there is one."""
        self.seen(name, value)
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
