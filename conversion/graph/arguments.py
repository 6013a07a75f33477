"""The inputs and attributes of a node, as the functions that read operations take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conversion.graph.builder import Builder, Value
from conversion.graph.expression import View
from conversion.graph.fold import fold
from conversion.graph.graph import Node

Inputs = Sequence[Value | None]
Operation = Callable[[Builder, Node, Inputs, int], Sequence[Value]]
"""``f(builder, node, its inputs, opset)`` → outputs."""


def required(inputs: Inputs, at: int) -> Value:
    """An input that must be there."""
    if at >= len(inputs) or (value := inputs[at]) is None:
        raise ValueError(f"input {at} is missing")
    return value


def optional(inputs: Inputs, at: int) -> Value | None:
    """An input that may be left out."""
    return inputs[at] if at < len(inputs) else None


def constant(value: Value | None) -> np.ndarray | None:
    """An input that must be constant if it is there."""
    if not isinstance(value, View):
        return value
    if value.expression.varies:
        raise ValueError("an input is computed from the image where a constant is expected")
    return fold(value)


def attributes_of(node: Node, **defaults: Any) -> list[Any]:
    """The values of attributes, each with its default."""
    return [node.attributes.get(name, default) for name, default in defaults.items()]
