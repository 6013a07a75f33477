"""Recognises the function that a group of operations computes, by evaluating it on inputs that distinguish the known
functions.

A GELU can be written in a dozen ways, and so can a LayerNorm. All of them give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from conversion.graph.elementwise import FUNCTIONS, REDUCTIONS
from conversion.graph.expression import Expression, View

_KNOWN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": FUNCTIONS["Gelu"],
    "gelu_tanh": lambda x: FUNCTIONS["Gelu"](x, "tanh"),
    "quick_gelu": lambda x: x * FUNCTIONS["Sigmoid"](1.702 * x),
    "silu": lambda x: x * FUNCTIONS["Sigmoid"](x),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "identity": lambda x: x,
}
"""The functions of ``vit_spec.Activation``, and those that occur elsewhere in a model."""
_POINTS = np.concatenate([np.linspace(-6, 6, 241), [-20.0, 20.0]])
_TOLERANCE = {"float16": 1e-4, "bfloat16": 2e-3}
"""How far rounding constants to a dtype moves a known function; 2e-6 for all other dtypes. The two forms of GELU, the
closest pair, are 4.7e-4 apart."""
_MOST = 64
"""Operations in one function."""


@dataclass(frozen=True)
class NormFacts:
    """``(x - mean) / sqrt(variance + eps) * weight + bias``; without the mean if not ``centred``."""

    centred: bool
    eps: float
    weight: np.ndarray | None
    bias: np.ndarray | None


def source_of(at: Expression) -> Expression | None:
    """The nearest expression from which alone ``at`` is computed, row by row; ``None`` if there is more than one."""
    waiting = {arg.expression.number: arg.expression for arg in at.views}
    for _ in range(_MOST):
        if len(waiting) == 1:
            (found,) = waiting.values()
            return found
        latest = waiting.pop(max(waiting))
        if not _is_pointwise(latest):
            return None
        waiting |= {arg.expression.number: arg.expression for arg in latest.views}
    return None


def _is_pointwise(at: Expression) -> bool:
    last = at.kind == "reduce" and at.facts["axes"] == (len(at.shape) - 1,)
    return at.kind == "elementwise" or last


def activation_of(at: Expression, source: Expression) -> tuple[str, float] | None:
    """Name and factor of an elementwise function: ``at = factor * name(source)``; ``None`` for an unknown one."""
    try:
        y = _Rows(source, 1).compute(at, _POINTS[:, None])[:, 0]
        tolerance = max((_TOLERANCE.get(name, 2e-6) for name in _dtypes(at, source)), default=2e-6)
    except (_NoRowsError, TypeError):
        return None
    if y.shape != _POINTS.shape or not np.isfinite(y).all() or not y.any():
        return None
    found: list[tuple[float, str, float]] = []
    for name, function in _KNOWN.items():
        expected = function(_POINTS)
        factor = float(y[-1] / expected[-1])
        found.append((float(np.abs(y / factor - expected).max()) if factor else math.inf, name, factor))
    distance, name, factor = min(found)
    return (name, factor) if distance <= tolerance else None


def norm_of(at: Expression, source: Expression) -> NormFacts | None:
    """The norm over the last axis that computes ``at`` from ``source``; ``None`` if it is another function."""
    D = source.shape[-1] if source.shape else 0
    if D < 2:
        return None

    def f(x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(_Rows(source, D).compute(at, x), x.shape)

    signs = np.where(np.arange(D) % 2, 1.0, -1.0)
    u = _norm(signs[None], True, 0.0)  # of mean 0 and mean square 1, with no element near 0
    try:
        bias = f(np.zeros((1, D)))[0]
        large = f(u * 1e9) - bias
        weight = large[0] / u[0]
        centred = bool(np.allclose(f(u * 1e3 + 5e3), f(u * 1e3), rtol=1e-9, atol=1e-12))
        eps = _eps(lambda t: f(u * t)[0] - bias, weight * u[0])
        if eps is None:
            return None
        x = np.random.default_rng(0).standard_normal((4, D)) * np.array([[1e-3], [0.1], [1.0], [30.0]]) + 0.3
        expected = _norm(x, centred, eps) * weight + bias
        close = np.abs(f(x) - expected).max() <= 1e-9 * np.abs(expected).max()
    except (_NoRowsError, TypeError):
        return None
    return NormFacts(centred, eps, weight, bias) if close else None


def centres(at: Expression, source: Expression) -> bool:
    """Whether ``at`` is ``source`` minus its mean over the last axis."""
    D = source.shape[-1] if source.shape else 0
    x = np.random.default_rng(0).standard_normal((3, max(D, 1))) + 0.5
    try:
        y = _Rows(source, D).compute(at, x)
    except (_NoRowsError, TypeError):
        return False
    return y.shape == x.shape and bool(np.abs(y - _centred(x)).max() <= 1e-9)


def is_unit(at: Expression, source: Expression) -> bool:
    """Whether ``at`` is ``source`` divided by its length over the last axis, with no guard that shows above 1e-9."""
    D = source.shape[-1] if source.shape else 0
    x = np.random.default_rng(0).standard_normal((4, max(D, 1))) * np.array([[1e-9], [1e-3], [1.0], [30.0]])
    try:
        y = _Rows(source, D).compute(at, np.concatenate([x, np.zeros_like(x[:1])]))
    except (_NoRowsError, TypeError):
        return False
    unit = x / np.sqrt((x * x).sum(-1, keepdims=True))
    return y[:-1].shape == x.shape and bool(np.abs(y[:-1] - unit).max() <= 1e-6) and not y[-1].any()


def is_softmax(at: Expression, source: Expression) -> bool:
    """Whether ``at`` is the softmax of ``source`` over the last axis."""
    D = source.shape[-1] if source.shape else 0
    x = np.random.default_rng(0).standard_normal((3, max(D, 1))) * 3
    try:
        y = _Rows(source, D).compute(at, x)
    except (_NoRowsError, TypeError):
        return False
    e = np.exp(x)
    return y.shape == x.shape and bool(np.abs(y - e / e.sum(-1, keepdims=True)).max() <= 1e-9)


def _eps(f: Callable[[float], np.ndarray], weighted: np.ndarray) -> float | None:
    """``eps`` of ``f(t) = weighted * t / sqrt(t² + eps)``, at the ``t`` where it matters most."""
    at = int(np.argmax(np.abs(weighted)))
    for exponent in np.arange(-9, 3, 0.5):
        t = 10.0**exponent
        ratio = float(f(t)[at] / weighted[at])
        if 0.3 < ratio < 0.95:
            return t * t * (1 / ratio**2 - 1)
    return None


def _norm(x: np.ndarray, centred: bool, eps: float) -> np.ndarray:
    x = _centred(x) if centred else x
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(-1, keepdims=True)


def _dtypes(at: Expression, source: Expression) -> set[str]:
    found: set[str] = set()
    waiting = [at]
    while waiting:
        now = waiting.pop()
        if now is not source:
            found |= {arg.dtype.name for arg in now.args if isinstance(arg, np.ndarray) and arg.dtype.kind not in "iub"}
            waiting += [arg.expression for arg in now.views]
    return found


class _NoRowsError(Exception):
    """The expression is not computed row by row."""


class _Rows:
    """Evaluates expressions on chosen rows in place of their source.

    Args:
        source: the expression from which the others are computed.
        width: length of a row; 1 for functions of single elements.
    """

    def __init__(self, source: Expression, width: int) -> None:
        self.source = source
        self.width = width
        self.count = source.size // max(source.shape[-1], 1) if source.shape else 1

    def compute(self, at: Expression, rows: np.ndarray) -> np.ndarray:
        known: dict[int, np.ndarray] = {self.source.number: rows}
        with np.errstate(all="ignore"):
            return self._compute(at, known)

    def _compute(self, at: Expression, known: dict[int, np.ndarray]) -> np.ndarray:
        if at.number not in known:
            if not _is_pointwise(at) or len(known) > 2 * _MOST:
                raise _NoRowsError
            args = [self._argument(arg, known) for arg in at.args]
            if at.kind == "reduce":
                if self.width == 1:
                    raise _NoRowsError
                known[at.number] = REDUCTIONS[at.facts["op"]](args[0], axis=-1, keepdims=True)
            else:
                known[at.number] = np.asarray(FUNCTIONS[at.facts["op"]](*args, **at.facts["attributes"]))
        return known[at.number]

    def _argument(self, arg: View | np.ndarray, known: dict[int, np.ndarray]) -> np.ndarray:
        if isinstance(arg, View):
            if arg.order is not None or arg.size not in (self.source.size, self.count):
                raise _NoRowsError
            return self._compute(arg.expression, known)
        if arg.size == 1:
            return arg.reshape(()).astype(np.float64) if arg.dtype.kind != "b" else arg.reshape(())
        if self.width == 1 or arg.shape[-1] != self.width or arg.size != self.width:
            raise _NoRowsError
        return arg.reshape(1, -1).astype(np.float64)
