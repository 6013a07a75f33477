"""Operations that are matrix products: MatMul, Gemm, Conv and Einsum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from conversion.graph.arguments import Inputs, constant, optional, required
from conversion.graph.builder import Builder, Value
from conversion.graph.expression import View
from conversion.graph.graph import Node


def matmul(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    return (b.matmul(required(inputs, 0), required(inputs, 1)),)


def gemm(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x, kernel, c = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    x = b.transposed(x) if node.attributes.get("transA") else x
    kernel = b.transposed(kernel) if node.attributes.get("transB") else kernel
    y = scaled(b, b.matmul(x, kernel), node.attributes.get("alpha", 1.0))
    return (y if c is None else b.elementwise("Add", [y, scaled(b, c, node.attributes.get("beta", 1.0))]),)


def scaled(b: Builder, x: Value, factor: float) -> Value:
    """``factor * x``."""
    return x if factor == 1 else b.elementwise("Mul", [x, np.array(factor, np.float32)])


def conv(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
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


def einsum(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
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
