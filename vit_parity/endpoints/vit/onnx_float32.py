"""A graph of 16-bit floats computed in float32, where its weights are the same numbers and results are not rounded.

Only constants that were rounded when the graph was made are others: 1/√2 in a GELU that is written out, or the factor
on attention logits. They are replaced by what they were rounded from, where that is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

_MOST = 1 << 29
"""16-bit weights: as float32 they still fit into one protobuf message."""
_USUAL = (math.sqrt(2), math.sqrt(0.5), math.sqrt(2 / math.pi), 0.044715, 0.035677408136300125, 1.702)
"""Of the GELU's forms; the fifth is 0.044715 √(2/π)."""
_EPSILON = 1e-4
"""Constants up to this are epsilons, whose rounding is far below that of float32 in what is normalised."""
_SHORT = 64
"""A number whose significand is a multiple of 1/64 was meant as it is."""


def in_float32(model: ModelProto, folder: Path, head_width: int) -> ModelProto | None:
    """The same graph in float32.

    Args:
        model: the graph, which is left as it is.
        folder: where its weights lie.
        head_width: d, whose square root scales attention.

    Returns:
        ``None`` for a graph without 16-bit floats, one that is too large or dequantises weights, and one with a rounded
        constant of unknown origin.
    """
    from onnx import ModelProto, TensorProto
    from onnx.external_data_helper import load_external_data_for_model

    half = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    weights = [it for it in model.graph.initializer if it.data_type in half]
    if not weights or sum(math.prod(it.dims) for it in weights) > _MOST:
        return None
    wide = ModelProto()
    wide.CopyFrom(model)
    load_external_data_for_model(wide, str(folder))  # who read the graph has checked where they lie
    usual = (*_USUAL, *(head_width**power for power in (-0.5, -0.25, 0.25, 0.5)))
    bodies = [wide.graph.node, *(function.node for function in wide.functions)]
    nodes = [node for body in bodies for node in _nodes(body)]
    if any(node.op_type in ("DequantizeLinear", "MatMulNBits") for node in nodes):
        return None
    tensors = [*wide.graph.initializer, *(it.t for node in nodes for it in node.attribute if it.HasField("t"))]
    for tensor in (it for it in tensors if it.data_type in half):
        if not _widen(tensor, usual):
            return None
    for node in nodes:
        for attribute in (it for it in node.attribute if node.op_type == "Cast" and it.name == "to"):
            attribute.i = TensorProto.FLOAT if attribute.i in half else attribute.i
    for value in (*wide.graph.input, *wide.graph.output):
        kind = value.type.tensor_type
        kind.elem_type = TensorProto.FLOAT if kind.elem_type in half else kind.elem_type
    del wide.graph.value_info[:]
    return wide


def _nodes(body: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs in their attributes."""
    for node in body:
        yield node
        for graph in (graph for attribute in node.attribute for graph in _graphs(attribute)):
            yield from _nodes(graph.node)


def _graphs(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _widen(tensor: TensorProto, usual: Sequence[float]) -> bool:
    """Make a tensor float32, in place; ``False`` if it is a single number of which nobody knows what it was."""
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    wide = array.astype(np.float32)
    if array.size == 1 and np.isfinite(wide).all():
        number = float(wide.reshape(()))
        known = [value for value in usual if abs(array.dtype.type(math.copysign(value, number))) == abs(number)]
        if known:
            wide = np.full(array.shape, math.copysign(known[0], number), np.float32)
        elif abs(number) > _EPSILON and math.frexp(number)[0] * _SHORT % 1:
            return False
    tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    return True
