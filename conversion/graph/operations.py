"""ONNX's own operations, in terms of :class:`conversion.graph.builder.Builder`'s."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from conversion.graph.arguments import Inputs, Operation, constant, optional, required
from conversion.graph.builder import Builder, Value, is_unknown
from conversion.graph.elementwise import FUNCTIONS, REDUCTIONS
from conversion.graph.expression import View
from conversion.graph.graph import Node
from conversion.graph.layout import LAYOUTS, ints
from conversion.graph.products import conv, einsum, gemm, matmul


def _elementwise(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    given = [value for value in inputs if value is not None]
    attributes = dict(node.attributes)
    if node.op == "Clip" and len(inputs) > 1:  # min may be left out where max is not
        low, high = constant(optional(inputs, 1)), constant(optional(inputs, 2))
        return (b.elementwise("Clip", given[:1], min=low, max=high),)
    return (b.elementwise(node.op, given, **attributes),)


def _reduce(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x, given = required(inputs, 0), constant(optional(inputs, 1))
    axes = node.attributes.get("axes") if given is None else ints(given)
    if not axes and node.attributes.get("noop_with_empty_axes"):
        return (x,)
    return (b.reduce(node.op, x, axes or None, bool(node.attributes.get("keepdims", 1))),)


def _layout(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    more = [constant(value) for value in inputs[1:]] if node.op != "Dropout" else []
    layout, count = LAYOUTS[node.op], len(node.outputs)
    return b.moved(required(inputs, 0), node.op, lambda x: layout(x, more, node.attributes, opset, count))


def _concat(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    return (b.concat([required(inputs, at) for at in range(len(inputs))], node.attributes["axis"]),)


def _cast(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x = required(inputs, 0)
    dtype: np.dtype = node.attributes["to"] if node.op == "Cast" else constant(required(inputs, 1)).dtype  # type: ignore[union-attr]
    if isinstance(x, np.ndarray):
        return (x.astype(dtype),)
    if dtype.kind in "iub":
        return (b.unknown([x], f", which rounds to {dtype}"),)
    return (x,)


def _shape(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    shape = np.array(required(inputs, 0).shape, np.int64)
    return (shape[node.attributes.get("start", 0) : node.attributes.get("end")],)


def _size(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    return (np.array(math.prod(required(inputs, 0).shape), np.int64),)


def _constant(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    for name, dtype in {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32,
                        "value_floats": np.float32}.items():  # fmt: skip
        if name in node.attributes:
            return (np.array(node.attributes[name], dtype),)
    if "value" not in node.attributes:
        return (b.unknown([], ", which is neither numbers nor a tensor"),)
    return (node.attributes["value"],)


def _filled(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    shape, value = ints(constant(required(inputs, 0))), node.attributes.get("value", np.zeros(1, np.float32))
    b.allow(shape)
    return (np.full(shape, value.reshape(()), value.dtype),)


def _eye(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x = required(inputs, 0)
    b.allow(x.shape)
    dtype = node.attributes.get("dtype", x.dtype if isinstance(x, np.ndarray) else np.dtype(np.float32))
    return (np.eye(*x.shape, k=node.attributes.get("k", 0), dtype=dtype),)


def _range(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    start, limit, step = (constant(required(inputs, at)) for at in range(3))
    assert start is not None and limit is not None and step is not None
    count = max(0, math.ceil((float(limit.item()) - float(start.item())) / float(step.item())))
    b.allow((count,))
    return ((start.reshape(()) + np.arange(count, dtype=start.dtype) * step.reshape(())).astype(start.dtype),)


def _tile(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x, repeats = required(inputs, 0), ints(constant(required(inputs, 1)))
    b.allow(tuple(side * count for side, count in zip(x.shape, repeats, strict=True)))
    return b.moved(x, "Tile", lambda y: (np.tile(y, repeats),))


def _pool(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x = required(inputs, 0)
    return (b.reduce("ReduceMean", x, range(2, len(x.shape)), keepdims=True),)


def _softmax(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x, axis = required(inputs, 0), node.attributes.get("axis", -1 if opset >= 13 else 1)
    if opset >= 13 or axis % len(x.shape) == len(x.shape) - 1:
        return (b.softmax(x, axis),)
    flat = b.reshaped(x, (math.prod(x.shape[:axis]), -1))  # over all axes from this one on, as old versions define it
    return (b.reshaped(b.softmax(flat), x.shape),)


def norm_node(b: Builder, node: Node, inputs: Inputs, centred: bool = True) -> Value:
    """LayerNormalization, RMSNormalization and their variants; the inputs are x, scale, bias."""
    x = required(inputs, 0)
    if node.attributes.get("axis", -1) % len(x.shape) != len(x.shape) - 1:
        return b.unknown([x], ", which normalises several axes")
    weight, bias = constant(optional(inputs, 1)), constant(optional(inputs, 2))
    return b.norm(x, weight, bias, node.attributes.get("epsilon", 1e-5), centred=centred)


def _layer_norm(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    return (norm_node(b, node, inputs),)


def _rms_norm(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    return (norm_node(b, node, inputs[:2], centred=False),)


def _resize(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """Resizing of a constant, a position table. Its values are not computed: the graph's reader takes the original."""
    x = required(inputs, 0)
    sizes, scales = optional(inputs, 3), optional(inputs, 2 if opset >= 11 else 1)
    if isinstance(x, View) and (x.expression.varies or is_unknown(x)):
        return (b.unknown([x]),)
    if isinstance(sizes, np.ndarray):
        shape = ints(sizes)
    elif isinstance(scales, np.ndarray):
        shape = tuple(math.floor(side * float(scale)) for side, scale in zip(x.shape, scales, strict=True))
    else:
        return (b.unknown([x]),)
    b.allow(shape)
    x = b.selected(x) if isinstance(x, View) else b.constant(x)
    return (b.make("resize", shape, [x], varies=False, settings=dict(node.attributes)),)


def _trilu(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x = constant(required(inputs, 0))
    assert x is not None
    offset = constant(optional(inputs, 1))
    k = 0 if offset is None else int(offset.item())
    return (np.triu(x, k) if node.attributes.get("upper", 1) else np.tril(x, k),)


OPERATIONS: dict[str, Operation] = {
    **dict.fromkeys(FUNCTIONS, _elementwise), **dict.fromkeys(REDUCTIONS, _reduce), **dict.fromkeys(LAYOUTS, _layout),
    "Concat": _concat, "Cast": _cast, "CastLike": _cast, "Shape": _shape, "Size": _size, "Constant": _constant,
    "ConstantOfShape": _filled, "Range": _range, "EyeLike": _eye, "Tile": _tile, "MatMul": matmul, "Gemm": gemm,
    "Conv": conv, "GlobalAveragePool": _pool, "Softmax": _softmax, "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm, "SimplifiedLayerNormalization": _rms_norm, "Einsum": einsum, "Resize": _resize,
    "Trilu": _trilu,
}  # fmt: skip
"""Operation → the function that reads it. Other operations are unknown."""
