"""What a pair of models says of itself, so that mistakes can be planted in each of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
import torch

from vit_parity.porting import Porting, compare
from vit_parity.porting.capture import model_of
from vit_parity.porting.layouts import apart
from vit_parity.porting.stages import ROOT, output_key


@dataclass(frozen=True)
class Planted:
    """One mistake in a port."""

    name: str
    change: Callable[[Any], None]
    """Plants it."""
    stage: str
    """A's stage that must be found, and no other."""
    cause: str | None = None
    """What must be named, exactly so; for ``None`` nothing may be named."""


@dataclass(frozen=True)
class OfAttention:
    """A mistake that the attention of several pairs may have."""

    name: str
    values: Mapping[str, Any]
    cause: str

    def at(self, path: str, stage: str) -> Planted:
        """In the module of a path."""
        return Planted(self.name, attributes(path, **self.values), stage, self.cause)


NO_MASK = OfAttention("no mask", {"causal": False}, "leaves out the causal mask")
NO_SCALE = OfAttention("no scale", {"scale": 1.0}, "does not scale its scores")
SCALE_OF_WIDTH = OfAttention("scale of D", {"scale": 24**-0.5},
                             "scales its scores by 1 / sqrt(D), not by that of a head")  # fmt: skip


@dataclass(frozen=True)
class PortedModel:
    """A PyTorch model and its port."""

    name: str
    make: Callable[[], torch.nn.Module]
    port: Callable[[torch.nn.Module], Any]
    """An NNX module with the same weights."""
    inputs: Any
    layers: Mapping[str, str]
    """Path of a layer of the port → A's stage."""
    own: Callable[[], list[Planted]]
    """Mistakes outside the layers: in activation functions, attention, and what is between."""
    inputs_b: Any = None

    @cached_property
    def model(self) -> torch.nn.Module:
        """A, made once."""
        return self.make()

    def compared(self, *changes: Callable[[Any], None]) -> Porting:
        """A against a fresh port with mistakes."""
        return compare(self.model, self._changed(changes), self.inputs, inputs_b=self.inputs_b)

    def moved(self, change: Callable[[Any], None]) -> float:
        """How far a mistake takes the port's own outputs in float64: the largest relative L2 distance."""
        given = channels_last(self.inputs) if self.inputs_b is None else self.inputs_b
        sound, wrong = (model_of(self._changed(of), given).run(wide=True).outputs for of in ((), (change,)))
        return max(apart(wrong[name], sound[name]) for name in sound if output_key(name)[0] == ROOT)

    def _changed(self, changes: Iterable[Callable[[Any], None]]) -> Any:
        mirror = self.port(self.model)
        for change in changes:
            change(mirror)
        return mirror


def channels_last(inputs: Any) -> Any:
    """Images (B, C, H, W) as (B, H, W, C), in any tree."""
    return jax.tree.map(lambda leaf: np.moveaxis(leaf, 1, -1) if leaf.ndim == 4 else leaf, inputs)


def at(model: Any, path: str) -> Any:
    """The part of a model at a path."""
    for step in filter(None, path.split(".")):
        model = model[int(step)] if step.isdigit() else getattr(model, step)
    return model


def attributes(path: str, **values: Any) -> Callable[[Any], None]:
    """Other attributes of a part."""

    def change(model: Any) -> None:
        for name, value in values.items():
            assert hasattr(at(model, path), name), name
            setattr(at(model, path), name, value)

    return change


def weights(path: str, function: Callable[[Any], Any], *names: str) -> Callable[[Any], None]:
    """Other values of a part's parameters."""

    def change(model: Any) -> None:
        for name in names:
            variable = getattr(at(model, path), name)
            variable[...] = function(variable[...])

    return change


def replaced(path: str, make: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Another module in the place of a part, made of it."""

    def change(model: Any) -> None:
        above, _, name = path.rpartition(".")
        parent = at(model, above)
        if name.isdigit():
            parent[int(name)] = make(parent[int(name)])
        else:
            setattr(parent, name, make(getattr(parent, name)))

    return change
