"""Evaluates a graph symbolically, node by node, from its inputs to its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion.graph.arguments import Inputs
from conversion.graph.builder import Builder, Value, is_unknown
from conversion.graph.expression import View
from conversion.graph.fused import FUSED
from conversion.graph.graph import Constant, Graph, Node
from conversion.graph.operations import OPERATIONS
from conversion.graph.placing import PLACING
from conversion.graph.quantised import QUANTISED
from vit_spec import VitportError

MOST_NODES = 50_000
"""A model of 48 blocks has 3,000 nodes, or some 10,000 if the graph computes every shape."""
_MOST_CALLS = 16
"""Functions within functions, and branches within branches."""
_READ = OPERATIONS | PLACING | FUSED | QUANTISED


@dataclass(frozen=True)
class Reference:
    """An attribute in a function that refers to an attribute of the call."""

    name: str


@dataclass(frozen=True)
class Trace:
    """A graph as expressions."""

    image: View
    outputs: Mapping[str, Value]
    values: Mapping[str, Value]
    """Every value that the outputs depend on, by name."""
    unknown: tuple[str, ...]
    """Nodes that were not understood, in order; everything computed from them is unknown."""
    dequantised: int
    """Weights that were stored as integers with scales."""


def trace(graph: Graph, image: str, shape: tuple[int, ...], upto: str | None = None) -> Trace:
    """Evaluate a graph symbolically.

    Args:
        graph: what to evaluate.
        image: name of the input that is the image.
        shape: its shape.
        upto: a value to end at, instead of the graph's outputs.

    Raises:
        VitportError: if nodes are out of order, contradict their shapes, or are quantised.
    """
    return _Tracer(graph).run(image, shape, graph.outputs if upto is None else (upto,))


class _Tracer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = Builder(graph.nbytes)
        self.values: dict[str, Value] = {}
        self.read: dict[int, np.ndarray] = {}
        self.left = MOST_NODES

    def run(self, image: str, shape: tuple[int, ...], outputs: tuple[str, ...]) -> Trace:
        b, graph = self.builder, self.graph
        b.place = f"input {image!r}"
        b.allow(shape)
        view = b.make("image", shape, varies=True)
        self.values[image] = view
        for given in graph.inputs:
            if given.name not in graph.constants and given.name != image:
                b.place = f"input {given.name!r}"
                self.values[given.name] = b.unknown([], ", which is not the image")
        self._nodes(graph.nodes, self.values, graph.constants, set(outputs), 0)
        found = {name: self._value(name, self.values, graph.constants, f"output {name!r}") for name in outputs}
        for name, value in self.values.items():
            if isinstance(value, View) and value.whole and not value.expression.value:
                value.expression.value = name
        return Trace(view, found, self.values, tuple(b.unknown_places), b.dequantised)

    def _nodes(
        self, nodes: tuple[Node, ...], values: dict[str, Value], constants: Mapping[str, Constant], ends: set[str],
        depth: int,
    ) -> None:  # fmt: skip
        """Run the nodes that ``ends`` depend on."""
        wanted: list[Node] = []
        for node in reversed(nodes):
            if ends & set(node.outputs):
                wanted.append(node)
                ends |= _reads(node)
        for node in reversed(wanted):
            self.left -= 1
            if self.left < 0:
                raise VitportError(
                    f"The graph has more than {MOST_NODES} nodes, ten times as many as a large Vision Transformer."
                )
            inputs: Inputs = [
                self._value(name, values, constants, node.place) if name else None for name in node.inputs
            ]
            self.builder.place = node.place
            results = self._node(node, inputs, values, constants, depth)
            for name, value in zip(node.outputs, results, strict=False):
                if name in values:
                    raise VitportError(f"The graph computes {name!r} more than once, again by {node.place}.")
                if name:
                    values[name] = value

    def _value(self, name: str, values: Mapping[str, Value], constants: Mapping[str, Constant], user: str) -> Value:
        if name in values:
            return values[name]
        if name not in constants:
            raise VitportError(
                f"The graph's {user} uses {name!r}, which no node before it computes: its nodes are out of order, or "
                "form a cycle."
            )
        stored = constants[name]
        if id(stored) not in self.read:
            self.read[id(stored)] = stored.read()
        return self.read[id(stored)]

    def _node(
        self, node: Node, inputs: Inputs, values: dict[str, Value], constants: Mapping[str, Constant], depth: int
    ) -> list[Value]:
        b = self.builder
        try:
            if node.op in self.graph.functions:
                return self._call(node, inputs, depth)
            if node.op == "If":
                return self._branch(node, inputs, values, constants, depth)
            if node.op.startswith("com.microsoft.nchwc::"):
                raise VitportError(
                    f"The graph's {node.place} stores weights in the layout of one processor: save the optimised graph "
                    "at onnxruntime's level ORT_ENABLE_EXTENDED instead of ORT_ENABLE_ALL."
                )
            operation = _READ.get(node.op)
            given = [value for value in inputs if value is not None]
            if operation is None or any(is_unknown(value) for value in given):
                return [b.unknown(given)] * len(node.outputs)
            results = list(operation(b, node, inputs, self.graph.opset))
            missing = len(node.outputs) - len(results)
            return results + [b.unknown(results, ", a further output")] * missing if missing > 0 else results
        except VitportError:
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError) as error:
            message = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise VitportError(f"The graph's {node.place} cannot be computed: {message}.") from error

    def _call(self, node: Node, inputs: Inputs, depth: int) -> list[Value]:
        function = self.graph.functions[node.op]
        self._check_depth(node, depth)
        attributes = {**function.defaults, **node.attributes}
        inner: dict[str, Value] = {
            name: value for name, value in zip(function.inputs, inputs, strict=False) if value is not None
        }
        nodes = tuple(_bound(it, attributes) for it in function.nodes)
        self._nodes(nodes, inner, {}, set(function.outputs), depth + 1)
        return [self._value(name, inner, {}, node.place) for name in function.outputs]

    def _branch(
        self, node: Node, inputs: Inputs, values: dict[str, Value], constants: Mapping[str, Constant], depth: int
    ) -> list[Value]:
        (condition,) = inputs
        if not isinstance(condition, np.ndarray):
            return [self.builder.unknown([] if condition is None else [condition])] * len(node.outputs)
        self._check_depth(node, depth)
        branch: Graph = node.attributes["then_branch" if condition.item() else "else_branch"]
        inner, known = dict(values), {**constants, **branch.constants}
        self._nodes(branch.nodes, inner, known, set(branch.outputs), depth + 1)
        return [self._value(name, inner, known, node.place) for name in branch.outputs]

    @staticmethod
    def _check_depth(node: Node, depth: int) -> None:
        if depth >= _MOST_CALLS:
            raise VitportError(f"The graph's {node.place} calls functions or branches more than {_MOST_CALLS} deep.")


def _reads(node: Node) -> set[str]:
    """Names of the values that a node uses, including those used in its branches."""
    names = {name for name in node.inputs if name}
    for value in node.attributes.values():
        if isinstance(value, Graph):
            names = names.union(*(_reads(inner) for inner in value.nodes), value.outputs)
    return names


def _bound(node: Node, attributes: Mapping[str, Any]) -> Node:
    """A node of a function, with the attributes of the call filled in."""
    if not any(isinstance(value, Reference) for value in node.attributes.values()):
        return node
    own = {
        name: attributes.get(value.name) if isinstance(value, Reference) else value
        for name, value in node.attributes.items()
    }
    return Node(
        node.op, node.inputs, node.outputs, {name: value for name, value in own.items() if value is not None}, node.name
    )
