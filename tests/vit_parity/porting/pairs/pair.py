"""What a pair of models says of itself, so that mistakes can be planted in each of its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from vit_parity.porting import Porting, compare


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

    def compared(self, change: Callable[[Any], None] = lambda _: None) -> Porting:
        """A against a fresh port with a mistake."""
        mirror = self.port(self.model)
        change(mirror)
        return compare(self.model, mirror, self.inputs, inputs_b=self.inputs_b)


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
