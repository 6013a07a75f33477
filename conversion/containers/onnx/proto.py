"""An ONNX file as a :class:`conversion.graph.graph.Graph`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.containers.file_checks import first_line
from conversion.containers.onnx.tensors import constant_of, external_files
from conversion.graph.graph import Constant, Function, Graph, GraphInput, Node
from conversion.graph.trace import MOST_NODES, Reference
from vit_spec import VitportError

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_DEPTH = 16
"""Branches within branches."""


def parse(path: Path) -> ModelProto:
    """The file's message; weights beside it are not read.

    Raises:
        VitportError: if onnx is missing, or the file is not a complete message.
    """
    try:
        import onnx
    except ImportError as error:
        raise VitportError(f"Reading {path} needs onnx: install the extra, pip install 'vitport[onnx]'.") from error
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf's errors have no common class
        raise VitportError(
            f"{path} is not a complete ONNX file ({first_line(error)}): fetch or export it again."
        ) from error
    if not model.HasField("graph"):
        raise VitportError(f"{path} is an ONNX file without a graph: fetch or export it again.")
    return model


def graph_of(model: ModelProto, path: Path) -> tuple[Graph, tuple[Path, ...]]:
    """The graph of a file, and the files that hold its weights.

    Raises:
        VitportError: for tensors whose shape and data disagree, names that occur twice, and data elsewhere.
    """
    folder = path.parent
    tensors = list(_tensors(model.graph, 0))
    files = (path, *external_files(tensors, folder))
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    read = _Reader(folder)
    graph = read.graph(model.graph, 0)
    functions = {_operation(it.domain, it.name): read.function(it) for it in model.functions}
    nbytes = sum(file.stat().st_size for file in files if file.is_file())
    return (
        Graph(graph.nodes, graph.constants, graph.inputs, graph.outputs, opset, functions, nbytes),
        tuple(file for file in files if file.is_file()),
    )


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = 0

    def graph(self, graph: GraphProto, depth: int) -> Graph:
        if depth > _DEPTH:
            raise VitportError(f"The ONNX file has branches more than {_DEPTH} deep: export the model again.")
        constants: dict[str, Constant] = {}
        if graph.sparse_initializer:
            raise VitportError("The ONNX file has sparse weights: export the model with dense ones.")
        for tensor in graph.initializer:
            if tensor.name in constants:
                raise VitportError(
                    f"The ONNX file holds the tensor {tensor.name[:80]!r} more than once: export it again."
                )
            constants[tensor.name] = constant_of(tensor, self.folder)
        self.nodes += len(graph.node)
        if self.nodes > MOST_NODES:
            raise VitportError(
                f"The ONNX file has more than {MOST_NODES} nodes, ten times as many as a large Vision Transformer."
            )
        inputs = tuple(_input(entry) for entry in graph.input)
        nodes = tuple(self.node(node, depth) for node in graph.node)
        return Graph(nodes, constants, inputs, tuple(entry.name for entry in graph.output), 0)

    def function(self, function: FunctionProto) -> Function:
        defaults = {entry.name: self.attribute(entry, 0) for entry in function.attribute_proto}
        nodes = tuple(self.node(node, 0) for node in function.node)
        return Function(tuple(function.input), tuple(function.output), nodes, defaults)

    def node(self, node: NodeProto, depth: int) -> Node:
        attributes = {entry.name: self.attribute(entry, depth) for entry in node.attribute}
        if node.op_type == "Cast" and "to" in attributes:
            attributes["to"] = _dtype(attributes["to"])
        op = _operation(node.domain, node.op_type)
        return Node(op, tuple(node.input), tuple(node.output), attributes, node.name)

    def attribute(self, entry: AttributeProto, depth: int) -> Any:
        from onnx import AttributeProto as Proto

        if entry.ref_attr_name:
            return Reference(entry.ref_attr_name)
        kind = entry.type
        if kind == Proto.TENSOR:
            return constant_of(entry.t, self.folder, entry.name).read()
        if kind == Proto.GRAPH:
            return self.graph(entry.g, depth + 1)
        if kind in (Proto.FLOAT, Proto.INT):
            return entry.f if kind == Proto.FLOAT else entry.i
        if kind == Proto.STRING:
            return entry.s.decode("utf-8", "replace")
        if kind in (Proto.FLOATS, Proto.INTS):
            return tuple(entry.floats if kind == Proto.FLOATS else entry.ints)
        return None


def _operation(domain: str, name: str) -> str:
    return name if domain in ("", "ai.onnx") else f"{domain}::{name}"


def _input(entry: ValueInfoProto) -> GraphInput:
    from onnx import TensorProto as Proto

    kind = entry.type.tensor_type
    floating = kind.elem_type in (Proto.FLOAT, Proto.FLOAT16, Proto.BFLOAT16, Proto.DOUBLE)
    shape = tuple(axis.dim_value if axis.dim_value > 0 else None for axis in kind.shape.dim)
    return GraphInput(entry.name, shape, floating)


def _dtype(number: int) -> np.dtype:
    from onnx import TensorProto as Proto
    from onnx import helper

    if number not in Proto.DataType.values() or number in (Proto.UNDEFINED, Proto.STRING):
        raise VitportError(f"The ONNX file casts to the type {number}, which is none: export the model again.")
    return helper.tensor_dtype_to_np_dtype(number)


def _tensors(graph: GraphProto, depth: int) -> Iterable[TensorProto]:
    """Every tensor of a graph, those of attributes and branches included."""
    yield from graph.initializer
    for entry in (entry for node in graph.node for entry in node.attribute):
        if entry.HasField("t"):
            yield entry.t
        if entry.HasField("g") and depth < _DEPTH:
            yield from _tensors(entry.g, depth + 1)
