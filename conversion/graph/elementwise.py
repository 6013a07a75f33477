"""Elementwise functions and reductions on numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Function = Callable[..., np.ndarray]


_erf = np.vectorize(math.erf, otypes=[np.float64])
"""Element by element, because it is computed for few numbers."""


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _div(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype.kind in "iu" and y.dtype.kind in "iu":
        return (np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))).astype(x.dtype)
    return x / y


def _mod(x: np.ndarray, y: np.ndarray, fmod: int = 0) -> np.ndarray:
    return np.fmod(x, y) if fmod else np.mod(x, y)


def _gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + _erf(x * math.sqrt(0.5)))


def _clip(x: np.ndarray, low: Any = None, high: Any = None, min: Any = None, max: Any = None) -> np.ndarray:
    return np.clip(x, min if low is None else low, max if high is None else high)


def _many(function: Callable[[Any, Any], Any]) -> Function:
    def fold(*arrays: np.ndarray) -> np.ndarray:
        result = arrays[0]
        for array in arrays[1:]:
            result = function(result, array)
        return result

    return fold


FUNCTIONS: Mapping[str, Function] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _div, "Pow": np.power, "Neg": np.negative,
    "Abs": np.abs, "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt, "Reciprocal": np.reciprocal, "Erf": _erf,
    "Erfc": lambda x: 1 - _erf(x),
    "Tanh": np.tanh, "Sigmoid": _sigmoid, "Relu": lambda x: np.maximum(x, 0), "Max": _many(np.maximum),
    "Min": _many(np.minimum), "Sum": _many(np.add), "Clip": _clip, "Where": np.where, "Equal": np.equal,
    "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal,
    "And": np.logical_and, "Or": np.logical_or, "Not": np.logical_not, "IsNaN": np.isnan, "IsInf": np.isinf,
    "Floor": np.floor, "Ceil": np.ceil, "Round": np.rint, "Sign": np.sign, "Mod": _mod, "Gelu": _gelu,
    "Softplus": lambda x: np.logaddexp(0, x), "Sin": np.sin, "Cos": np.cos,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1), "Mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "Elu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x)),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x > 0, x, alpha * x),
    "Swish": lambda x, alpha=1.0: x * _sigmoid(alpha * x),
    "com.microsoft::Gelu": _gelu, "com.microsoft::FastGelu": lambda x: _gelu(x, "tanh"),
    "com.microsoft::QuickGelu": lambda x, alpha=1.702: x * _sigmoid(alpha * x),
}  # fmt: skip
"""Operation → function of its inputs and attributes. Erfc is TensorFlow's, which tf2onnx leaves in its graphs."""

REDUCTIONS: Mapping[str, Function] = {
    "ReduceMean": np.mean, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod,
    "ReduceL2": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    "ReduceSumSquare": lambda x, axis, keepdims: np.sum(x * x, axis=axis, keepdims=keepdims),
}  # fmt: skip
"""Operation → function of an array, ``axis`` and ``keepdims``."""
