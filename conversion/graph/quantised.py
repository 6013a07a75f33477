"""Quantised weights: dequantised by their scales, exactly; graphs that round what layers compute are refused.

Definitions: ONNX's operator schemas, and ``MatMulNBits`` in docs/ContribOperators.md of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conversion.graph.arguments import Inputs, Operation, attributes_of, constant, optional, required
from conversion.graph.builder import Builder, Value
from conversion.graph.expression import View
from conversion.graph.graph import Node
from vit_spec import VitportError

_INT8 = 4
"""``accuracy_level`` of MatMulNBits at which the layer's input is rounded to int8."""


def _dequantize(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """Of constant weights: exactly what onnxruntime computes with."""
    x, scale, zero = required(inputs, 0), constant(required(inputs, 1)), constant(optional(inputs, 2))
    assert scale is not None
    if isinstance(x, View):
        raise _refusal(b.place)
    block = node.attributes.get("block_size", 0)
    axis = node.attributes.get("axis", 1)

    def spread(array: np.ndarray) -> np.ndarray:
        if block:
            return np.repeat(array, block, axis).take(range(x.shape[axis]), axis)
        return array.reshape([-1 if at == axis % x.ndim else 1 for at in range(x.ndim)]) if array.ndim == 1 else array

    steps = x.astype(scale.dtype) if zero is None else x.astype(scale.dtype) - spread(zero).astype(scale.dtype)
    b.dequantised += 1
    return (steps * spread(scale),)


def _matmul_bits(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    """``x @ w.T + bias``, w (N, K) by blocks of a row: ``scale * (number - zero)``, several numbers in a byte."""
    x, packed, scale = required(inputs, 0), constant(required(inputs, 1)), constant(required(inputs, 2))
    zero, order, bias = constant(optional(inputs, 3)), optional(inputs, 4), constant(optional(inputs, 5))
    K, N, bits, block, level = attributes_of(node, K=0, N=0, bits=4, block_size=32, accuracy_level=0)
    assert packed is not None and scale is not None
    if level == _INT8:
        raise _refusal(b.place)
    if order is not None or bits not in (2, 4, 8) or isinstance(x, np.ndarray):
        return (b.unknown([x], f" of {bits} bits, in an order of its own or of constants"),)
    b.allow((N, K))
    blocks = -(-K // block)
    numbers = _unpacked(packed.reshape(N, -1), bits)[:, : blocks * block].reshape(N, blocks, block)
    scale = scale.reshape(N, blocks, 1)
    if zero is None:
        zeros = np.array(1 << (bits - 1), scale.dtype)
    elif zero.dtype == np.uint8:
        zeros = _unpacked(zero.reshape(N, -1), bits)[:, :blocks, None].astype(scale.dtype)
    else:
        zeros = zero.reshape(N, blocks, 1)
    kernel = ((numbers.astype(scale.dtype) - zeros) * scale).reshape(N, -1)[:, :K]
    b.dequantised += 1
    y = b.matmul(x, np.ascontiguousarray(kernel.T))
    return (y if bias is None else b.elementwise("Add", [y, bias]),)


def _unpacked(array: np.ndarray, bits: int) -> np.ndarray:
    """Bytes (N, n) -> numbers (N, n 8 / bits), the low bits of a byte first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return (array[:, :, None] >> shifts & np.uint8((1 << bits) - 1)).reshape(len(array), -1)


def _refusal(place: str) -> VitportError:
    return VitportError(
        f"The graph is quantised: its {place} rounds what the layers compute to integers, so no float weights give the "
        "same results. Export the model in float32 or float16."
    )


def _refused(b: Builder, node: Node, inputs: Inputs, opset: int) -> Sequence[Value]:
    raise _refusal(b.place)


_MS = "com.microsoft::"
_INTEGERS = ("QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv")
_INTEGERS_OF_MS = (
    "QAttention", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QuantizeLinear", "QLinearAdd",
    "QLinearMul", "QLinearConcat", "QLinearSoftmax", "QOrderedMatMul", "MatMulFpQ4", "MatMulBnb4",
    "DynamicQuantizeLSTM", "QMoE", "QLinearGlobalAveragePool", "QLinearSigmoid", "QLinearLeakyRelu",
    "QLinearAveragePool", "QLinearReduceMean",
)  # fmt: skip
QUANTISED: dict[str, Operation] = {
    "DequantizeLinear": _dequantize, f"{_MS}DequantizeLinear": _dequantize, f"{_MS}MatMulNBits": _matmul_bits,
    **dict.fromkeys(_INTEGERS, _refused), **{f"{_MS}{name}": _refused for name in _INTEGERS_OF_MS},
}  # fmt: skip
"""Operation → what it does."""
