"""From the last stage of a Swin Transformer to an output of its graph: norm, mean, linear layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conversion.graph.expression import Expression, View
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.heads import in_words
from conversion.graph.layers import Layers, Linear, Norm, unselected


@dataclass(frozen=True, eq=False)
class Head:
    """How an output is computed from the tokens after the last block."""

    tokens: Expression
    """After the last block, before any norm."""
    norm: Norm | None
    normed: Expression | None
    pooled: bool
    layer: Linear | None = None
    softmax: bool = False
    """Whether the graph gives probabilities; the logits before the softmax are read instead."""
    output: Expression | None = None
    """The output without that softmax."""


def head_of(output: View, layers: Layers, batch: int) -> Head:
    """How an output is computed.

    Raises:
        NotUnderstoodError: if it is nothing that a Swin Transformer gives.
    """
    at, softmax = output.expression, False
    step = layers.step(at)
    if step.kind == "softmax" and step.x is not None and len(output.shape) == 2:
        at, softmax = step.x, True
    view = output if at is output.expression else View(at, at.shape)
    layer = layers.linear(at) if view.order is None else None
    if layer is not None and (mean := _mean(layer.x, layers, batch)) is not None:
        return Head(*_normed(mean, layers), True, layer, softmax, at)
    if (mean := _mean(view, layers, batch)) is not None:
        return Head(*_normed(mean, layers), True, output=at)
    base, order = unselected(view)
    if base is None or order is None or order.size != base.size or not base.shape:
        raise _no_head(at)
    D = base.shape[-1]
    tokens = np.arange(base.size).reshape(batch, -1, D)
    if not any(np.array_equal(order.reshape(batch, -1), each.reshape(batch, -1))
               for each in (tokens, tokens.swapaxes(1, 2))):  # fmt: skip
        raise _no_head(at)
    return Head(*_normed(base, layers), False, output=at)


def _normed(at: Expression, layers: Layers) -> tuple[Expression, Norm | None, Expression | None]:
    norm = layers.norm(at)
    if norm is None or norm.x.order is not None:
        return at, None, None
    return norm.x.expression, norm, at


def _mean(view: View, layers: Layers, batch: int) -> Expression | None:
    """All tokens whose mean is the view, in any layout."""
    at, order = unselected(view)
    if at is None or order is None or not np.array_equal(order.reshape(-1), np.arange(at.size)):
        return None
    inner, factor = layers.scaled(at)
    if inner.kind != "reduce" or inner.facts["op"] not in ("ReduceMean", "ReduceSum"):
        return None
    (given,) = inner.views
    base, numbers = unselected(given)
    if base is None or numbers is None or not base.shape or numbers.size != base.size:
        return None
    D, axes = base.shape[-1], inner.facts["axes"]
    if inner.size != batch * D:
        return None
    count = base.size // (batch * D)
    if abs(factor * (count if inner.facts["op"] == "ReduceSum" else 1) - 1) > 1e-5:
        return None
    kept = [axis for axis in range(len(given.shape)) if axis not in axes]
    by_channel = numbers.reshape(given.shape).transpose([*kept, *axes]).reshape(batch * D, count)
    expected = np.arange(base.size).reshape(batch, count, D).swapaxes(1, 2).reshape(batch * D, count)
    return base if np.array_equal(np.sort(by_channel, -1), expected) else None


def _no_head(at: Expression) -> NotUnderstoodError:
    return NotUnderstoodError(
        f"The graph's {in_words(at)} is where a head was expected: all tokens, their mean, or one linear layer of it."
    )
