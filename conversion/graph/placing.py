"""Operations that put numbers at places of an array: Pad, said as constants beside a value; ScatterND of constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conversion.graph.arguments import Inputs, Operation, constant, optional, required
from conversion.graph.builder import Builder, Value
from conversion.graph.expression import View
from conversion.graph.graph import Node
from conversion.graph.layout import ints


def _pad(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """Constants around a value; a negative number of them takes a part of the value away."""
    x, given, axes = required(inputs, 0), constant(optional(inputs, 1)), constant(optional(inputs, 3))
    pads = tuple(node.attributes["pads"]) if given is None else ints(given)
    on = tuple(range(len(x.shape))) if axes is None else tuple(axis % len(x.shape) for axis in ints(axes))
    if len(pads) != 2 * len(on):
        raise ValueError(f"{len(pads)} pads for {len(on)} axes")
    mode, value = node.attributes.get("mode", "constant"), constant(optional(inputs, 2))
    value = np.array(node.attributes.get("value", 0), np.float32) if value is None else value
    if any(pads) and mode != "constant":
        return (b.unknown([x], f", which pads in the mode {mode}"),)
    for axis, before, after in zip(on, pads[: len(on)], pads[len(on) :], strict=True):
        x = _padded(b, x, axis, (before, after), value)
    return (x,)


def _padded(b: Builder, x: Value, axis: int, pads: tuple[int, int], value: np.ndarray) -> Value:
    side = x.shape[axis]
    if min(pads) < 0:
        cut = (slice(None),) * axis + (slice(max(-pads[0], 0), side + min(pads[1], 0)),)
        (x,) = b.moved(x, "Slice", lambda y: (y[cut],))
    first, last = ((*x.shape[:axis], max(count, 0), *x.shape[axis + 1 :]) for count in pads)
    for shape in (first, last):
        b.allow(shape)
    parts = [np.full(first, value.reshape(()), value.dtype), x, np.full(last, value.reshape(()), value.dtype)]
    parts = [part for part in parts if part is x or part.size]
    return x if len(parts) == 1 else b.concat(parts, axis)


def _scatter_nd(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """Of constants: parts of a mask or of a bias that were assigned."""
    given = [required(inputs, at) for at in range(3)]
    if any(isinstance(value, View) and value.expression.varies for value in given):
        return (b.unknown(given, ", which assigns to parts of what is computed from the image"),)
    if any(value != "none" for value in node.attributes.values()):
        return (b.unknown(given, ", which adds to parts of a constant"),)
    found, at, updates = (np.array(constant(value)) for value in given)
    found[tuple(np.moveaxis(at, -1, 0))] = updates
    return (found,)


PLACING: dict[str, Operation] = {"Pad": _pad, "ScatterND": _scatter_nd}
"""Operation → what it does."""
