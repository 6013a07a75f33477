"""An MLP in a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conversion.graph.expression import View
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.layers import Layers, Linear, Norm, in_own_order


@dataclass(frozen=True, eq=False)
class Mlp:
    """``second(act(first))``, times ``value`` where there is a gate."""

    first: Linear
    columns: np.ndarray | None
    """Outputs of ``first``; all if ``None``."""
    value: tuple[Linear, np.ndarray | None] | None
    activation: str
    norm: Norm | None
    second: Linear


def mlp_of(x: View, norm: Norm | None, out: Linear, layers: Layers) -> Mlp:
    """The MLP whose last layer ``out`` reads ``x``, after ``norm`` if there is one.

    Raises:
        NotUnderstoodError: if it is not the activation of a linear layer.
    """
    if (found := layers.activation(x)) is not None:
        source, name, factor = found
        first = _hidden(source, out.place, layers)
        return Mlp(*first, None, _activation(name, out), norm, _multiplied(out, factor, norm))
    at = in_own_order(x, out.place)
    step = layers.step(at)
    if step.kind == "multiply" and step.x is not None and step.y is not None:
        for gate, value in ((step.x, step.y), (step.y, step.x)):
            if (found := layers.activation(View(gate, gate.shape))) is not None:
                source, name, factor = found
                gated = _hidden(View(value, value.shape), at.place, layers)
                return Mlp(*_hidden(source, at.place, layers), gated, _activation(name, out), norm,
                           _multiplied(out, factor, norm))  # fmt: skip
    raise NotUnderstoodError(
        f"The graph's {at.place} is the input of a linear layer, where attention, or a known activation of a "
        "linear layer (GELU, its tanh form, quick GELU, SiLU, ReLU, gated or not) was expected."
    )


def _hidden(view: View, place: str, layers: Layers) -> tuple[Linear, np.ndarray | None]:
    if view.order is None and (layer := layers.linear(view.expression)) is not None:
        return layer, None
    found = layers.columns(view, view.shape[-1])
    if found is None:
        raise NotUnderstoodError(f"The graph's {place} is not the activation of a linear layer.")
    return found


def _activation(name: str, out: Linear) -> str:
    if name in ("identity", "tanh"):
        raise NotUnderstoodError(
            f"The graph's {out.place} reads the {name} of a linear layer, which no MLP of a ViT has."
        )
    return name


def _multiplied(layer: Linear, factor: float, norm: Norm | None) -> Linear:
    """The layer for inputs without a factor, such as the half of a GELU that an optimiser moved into it."""
    if abs(factor - 1) <= 1e-6:
        return layer
    if norm is not None:
        raise NotUnderstoodError(
            f"The graph's {norm.place} normalises {factor:g} times an activation, which no ViT does."
        )
    return Linear(layer.x, layer.kernel * np.asarray(factor, layer.kernel.dtype), layer.bias, layer.place)
