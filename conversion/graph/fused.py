"""Fused operations, split into plain ones: onnxruntime's own, and ONNX's ``Attention``.

Their definitions: docs/ContribOperators.md of onnxruntime, and ONNX's operator schemas.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from conversion.graph.arguments import Inputs, Operation, attributes_of, constant, optional, required
from conversion.graph.builder import Builder, Value
from conversion.graph.expression import View
from conversion.graph.graph import Node
from conversion.graph.operations import OPERATIONS, norm_node
from conversion.graph.products import scaled


def _bias_activation(op: str) -> Operation:
    def apply(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
        x, bias = required(inputs, 0), optional(inputs, 1)
        return (b.elementwise(op, [x if bias is None else b.elementwise("Add", [x, bias])]),)

    return apply


def _skip_norm(centred: bool) -> Operation:
    """``norm(x + skip + bias)``; the sum is the fourth output."""

    def apply(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
        x, skip = required(inputs, 0), required(inputs, 1)
        bias = optional(inputs, 4 if centred else 3)
        if bias is not None:
            first = isinstance(x, View) and x.expression.kind == "linear"  # a bias belongs to the layer before it
            x, skip = (b.elementwise("Add", [x, bias]), skip) if first else (x, b.elementwise("Add", [skip, bias]))
        total = b.elementwise("Add", [x, skip])
        given = [total, optional(inputs, 2), optional(inputs, 3) if centred else None]
        y = norm_node(b, node, given, centred)
        none = b.unknown([total], ", whose statistics are used")
        return (y, none, none, total)

    return apply


def _fused_matmul(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    x, y = required(inputs, 0), required(inputs, 1)
    left, right, alpha, first, second = attributes_of(node, transA=0, transB=0, alpha=1.0, transBatchA=0, transBatchB=0)
    x, y = (
        b.moved(value, "", lambda z: (np.moveaxis(z, 0, -2),))[0] if batch else value  # rows come before the batch
        for value, batch in ((x, first), (y, second))
    )
    product = b.matmul(b.transposed(x) if left else x, b.transposed(y) if right else y)
    return (scaled(b, product, alpha),)


def _fused_gemm(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    (y,) = OPERATIONS["Gemm"](b, node, inputs, opset)
    name = node.attributes.get("activation", "")
    if name not in OPERATIONS:
        return (b.unknown([y], f" with activation {name!r}"),)
    return (b.elementwise(name, [y]),)


def _attend(b: Builder, q: Value, k: Value, v: Value, scale: float | None, mask: Value | None) -> Value:
    """(B, h, N, d) each → (B, h, N, d)."""
    factor = float(q.shape[-1] ** -0.5) if scale is None else scale
    logits = scaled(b, b.matmul(q, b.transposed(k)), factor)
    if mask is not None:
        logits = b.elementwise("Add", [logits, mask])
    return b.matmul(b.softmax(logits), v)


def _heads(b: Builder, x: Value, count: int) -> Value:
    """(B, N, h d) → (B, h, N, d)."""
    B, N, D = x.shape
    return b.moved(x, "", lambda y: (y.reshape(B, N, count, D // count).swapaxes(1, 2),))[0]


def _merged(b: Builder, x: Value) -> Value:
    """(B, h, N, d) → (B, N, h d)."""
    B, _, N, _ = x.shape
    return b.moved(x, "", lambda y: (y.swapaxes(1, 2).reshape(B, N, -1),))[0]


def _part(b: Builder, x: Value, start: int, end: int) -> Value:
    return b.moved(x, "", lambda y: (y[..., start:end],))[0]


def _attention(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """onnxruntime's Attention: one matrix for queries, keys and values."""
    x, kernel, bias = required(inputs, 0), constant(required(inputs, 1)), optional(inputs, 2)
    heads, scale, causal, sizes = attributes_of(node, num_heads=0, scale=None, unidirectional=0, qkv_hidden_sizes=None)
    if causal or any(value is not None for value in inputs[3:]) or kernel is None:
        return (b.unknown([x], " with a mask, a past or a bias on logits"),)
    qkv = b.matmul(x, kernel)
    qkv = qkv if bias is None else b.elementwise("Add", [qkv, bias])
    ends = np.cumsum(sizes or [kernel.shape[1] // 3] * 3).tolist()
    parts = [_part(b, qkv, start, end) for start, end in zip([0, *ends[:2]], ends, strict=True)]
    q, k, v = (_heads(b, part, heads) for part in parts)
    return (_merged(b, _attend(b, q, k, v, scale, None)),)


def _multi_head_attention(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """onnxruntime's MultiHeadAttention: queries, keys and values apart, all packed (B, N, h, 3, d), or the last two."""
    q, k, v, bias = required(inputs, 0), optional(inputs, 1), optional(inputs, 2), optional(inputs, 3)
    heads, scale, causal = attributes_of(node, num_heads=0, scale=None, unidirectional=0)
    if causal or any(value is not None for value in inputs[4:]):
        return (b.unknown([q], " with a mask, a past or a bias on logits"),)
    if len(q.shape) == 5:
        q, k, v = (b.moved(q, "", lambda y, at=at: (y[:, :, :, at].swapaxes(1, 2),))[0] for at in range(3))
    elif k is not None and len(k.shape) == 5:
        k, v = (b.moved(k, "", lambda y, at=at: (y[:, :, :, at].swapaxes(1, 2),))[0] for at in range(2))
    if k is None or v is None:
        raise ValueError("keys or values are missing")
    if bias is not None:
        D = q.shape[-1] if len(q.shape) == 3 else heads * q.shape[-1]
        ends = [0, D, 2 * D, bias.shape[-1]]
        biases = [_part(b, bias, start, end) for start, end in pairwise(ends)]
        shaped = [
            part if len(x.shape) == 3 else b.reshaped(part, (heads, 1, -1))
            for part, x in zip(biases, (q, k, v), strict=True)
        ]
        q, k, v = (b.elementwise("Add", [x, part]) for x, part in zip((q, k, v), shaped, strict=True))
    q, k, v = (x if len(x.shape) == 4 else _heads(b, x, heads) for x in (q, k, v))
    return (_merged(b, _attend(b, q, k, v, scale, None)),)


def _onnx_attention(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """ONNX's Attention, since version 23."""
    q, k, v, mask = required(inputs, 0), required(inputs, 1), required(inputs, 2), optional(inputs, 3)
    scale, causal, cap, q_heads, heads = attributes_of(
        node, scale=None, is_causal=0, softcap=0.0, q_num_heads=0, kv_num_heads=0
    )
    if causal or cap or any(value is not None for value in inputs[4:]) or len(node.outputs) > 1:
        return (b.unknown([q], " with a mask, a past, a cap or a second output"),)
    flat = len(q.shape) == 3
    if flat:
        q, k, v = _heads(b, q, q_heads), _heads(b, k, heads), _heads(b, v, heads)
    if isinstance(mask, np.ndarray) and mask.dtype.kind == "b":
        mask = None if mask.all() else np.where(mask, np.float32(0), np.float32(-np.inf))
    if q.shape[1] != k.shape[1]:
        return (b.unknown([q], ", whose queries share keys"),)
    y = _attend(b, q, k, v, scale, mask)
    return (_merged(b, y) if flat else y,)


_MS = "com.microsoft::"
FUSED: dict[str, Operation] = {
    f"{_MS}BiasGelu": _bias_activation("Gelu"), f"{_MS}FastGelu": _bias_activation(f"{_MS}FastGelu"),
    f"{_MS}SkipLayerNormalization": _skip_norm(True), f"{_MS}SkipSimplifiedLayerNormalization": _skip_norm(False),
    f"{_MS}FusedMatMul": _fused_matmul, f"{_MS}FusedGemm": _fused_gemm, f"{_MS}Attention": _attention,
    f"{_MS}MultiHeadAttention": _multi_head_attention, "Attention": _onnx_attention,
    f"{_MS}TransposeMatMul": _fused_matmul,
    f"{_MS}LayerNormalization": OPERATIONS["LayerNormalization"],
}  # fmt: skip
"""Operation → what it stands for."""
