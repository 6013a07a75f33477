"""ONNX's own operations, said in those of :class:`conversion.graph.builder.Builder`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conversion.graph.builder import Builder, Value, is_unknown
from conversion.graph.elementwise import FUNCTIONS, REDUCTIONS
from conversion.graph.expression import View
from conversion.graph.fold import fold
from conversion.graph.graph import Node
from conversion.graph.layout import LAYOUTS, ints

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


def _matmul(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    return (b.matmul(required(inputs, 0), required(inputs, 1)),)


def _gemm(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x, kernel, c = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    x = b.transposed(x) if node.attributes.get("transA") else x
    kernel = b.transposed(kernel) if node.attributes.get("transB") else kernel
    y = scaled(b, b.matmul(x, kernel), node.attributes.get("alpha", 1.0))
    return (y if c is None else b.elementwise("Add", [y, scaled(b, c, node.attributes.get("beta", 1.0))]),)


def scaled(b: Builder, x: Value, factor: float) -> Value:
    """``factor * x``."""
    return x if factor == 1 else b.elementwise("Mul", [x, np.array(factor, np.float32)])


def _conv(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """A convolution whose windows do not overlap is a linear layer over patches."""
    x, kernel, bias = required(inputs, 0), constant(required(inputs, 1)), constant(optional(inputs, 2))
    assert kernel is not None
    a, size = node.attributes, kernel.shape[2:]
    even = all(side % step == 0 for side, step in zip(x.shape[2:], size, strict=False))
    padded = any(a.get("pads", ())) or (a.get("auto_pad", "NOTSET").startswith("SAME") and not even)
    plain = (
        len(x.shape) == 4
        and tuple(a.get("strides", (1, 1))) == size
        and not padded
        and a.get("group", 1) == 1
        and set(a.get("dilations", (1,))) == {1}
    )
    if isinstance(x, np.ndarray) or not plain:
        return (b.unknown([x], ", whose windows overlap, leave gaps or are padded"),)
    (B, C, H, W), (outputs, _, P, Q) = x.shape, kernel.shape
    h, w = H // P, W // Q
    if kernel.shape[1] != C:
        raise ValueError(f"an image of shape {x.shape} and a kernel of {kernel.shape}")

    def windows(y: np.ndarray) -> tuple[np.ndarray]:
        y = y[:, :, : h * P, : w * Q].reshape(B, C, h, P, w, Q)
        return (y.transpose(0, 2, 4, 1, 3, 5).reshape(B, h * w, C * P * Q),)

    (patches,) = b.moved(x, "", windows)
    rows = kernel.reshape(outputs, -1)
    if ((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all():  # TensorFlow's extract_patches
        (y,) = b.moved(patches, "", lambda z: (z[..., rows.argmax(axis=1)],))
    else:
        y = b.linear(patches, rows.T)  # type: ignore[arg-type]
    y = y if bias is None else b.elementwise("Add", [y, bias])
    return b.moved(y, "", lambda z: (z.swapaxes(1, 2).reshape(B, outputs, h, w),))


def _pool(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x = required(inputs, 0)
    return (b.reduce("ReduceMean", x, range(2, len(x.shape)), keepdims=True),)


def _softmax(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x, axis = required(inputs, 0), node.attributes.get("axis", -1 if opset >= 13 else 1)
    if opset >= 13 or axis % len(x.shape) == len(x.shape) - 1:
        return (b.softmax(x, axis),)
    flat = b.reshaped(x, (math.prod(x.shape[:axis]), -1))  # all axes from there on, as old versions define it
    return (b.reshaped(b.softmax(flat), x.shape),)


def norm_node(b: Builder, node: Node, inputs: Inputs, centred: bool = True) -> Value:
    """LayerNormalization, RMSNormalization and their kin: x, scale, bias."""
    x = required(inputs, 0)
    if node.attributes.get("axis", -1) % len(x.shape) != len(x.shape) - 1:
        return b.unknown([x], ", which norms several axes")
    weight, bias = constant(optional(inputs, 1)), constant(optional(inputs, 2))
    return b.norm(x, weight, bias, node.attributes.get("epsilon", 1e-5), centred=centred)


def _layer_norm(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    return (norm_node(b, node, inputs),)


def _rms_norm(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    return (norm_node(b, node, inputs[:2], centred=False),)


def _einsum(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    equation = str(node.attributes["equation"]).replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not arrow or "." in equation or any(len(set(term)) < len(term) for term in (*terms, out)):
        return (b.unknown([v for v in inputs if v is not None], f" of {equation}"),)
    x, y, (p, q) = required(inputs, 0), required(inputs, 1), terms
    if isinstance(x, np.ndarray) and isinstance(y, View):
        x, y, p, q = y, x, q, p
    sides = dict(zip(p + q, (*x.shape, *y.shape), strict=True))
    batch = [letter for letter in p if letter in q and letter in out]
    over = [letter for letter in p if letter in q and letter not in out]
    rows, columns = ([letter for letter in term if letter not in other] for term, other in ((p, q), (q, p)))
    if set(rows + columns) - set(out):
        return (b.unknown([x, y], f" of {equation}"),)

    def ordered(value: Value, term: str, letters: list[str], shape: tuple[int, ...]) -> Value:
        move = [term.index(letter) for letter in letters]
        return b.moved(value, "", lambda z: (z.transpose(move).reshape(shape),))[0]

    def sizes(letters: list[str]) -> tuple[int, ...]:
        return tuple(sides[letter] for letter in letters)

    B, R, K, C = (math.prod(sizes(letters)) for letters in (batch, rows, over, columns))
    stack = (B,) if batch else ()
    product = b.matmul(
        ordered(x, p, batch + rows + over, (*stack, R, K)), ordered(y, q, batch + over + columns, (*stack, K, C))
    )
    found = batch + rows + columns
    move = [found.index(letter) for letter in out]
    return b.moved(product, "", lambda z: (z.reshape(sizes(found)).transpose(move),))


def _resize(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """Of a constant: a table of positions on its way to another grid. Its values are left to the graph's reader."""
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
    "ConstantOfShape": _filled, "Range": _range, "EyeLike": _eye, "Tile": _tile, "MatMul": _matmul, "Gemm": _gemm,
    "Conv": _conv,
    "GlobalAveragePool": _pool, "Softmax": _softmax, "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm, "SimplifiedLayerNormalization": _rms_norm, "Einsum": _einsum, "Resize": _resize,
    "Trilu": _trilu,
}  # fmt: skip
"""Operation → what it does. Others are unknown."""


def attributes_of(node: Node, **defaults: Any) -> list[Any]:
    """The values of attributes, each with its default."""
    return [node.attributes.get(name, default) for name, default in defaults.items()]
