"""The last step of an expression: a sum, product, scale, shift, norm, softmax or activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from conversion.graph.expression import Expression, View
from conversion.graph.functions import activation_of, centres, is_softmax, is_unit, norm_of, source_of

StepKind = Literal["scale", "shift", "sum", "multiply", "activation", "centre", "norm", "softmax", "unit", "other"]
"""``unit`` divides by the length over the last axis."""


@dataclass(frozen=True, eq=False)
class Step:
    """What an expression computes from the one or two expressions before it."""

    kind: StepKind
    x: Expression | None = None
    y: Expression | None = None
    """The second term of a sum or factor of a product."""
    by: np.ndarray | None = None
    """The constant that is added or multiplied."""
    name: str = ""
    """The activation's name."""
    factor: float = 1.0
    """The factor on the activation's output."""
    norm: Norm | None = None


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm, or RMSNorm if not ``centred``, over the last axis."""

    x: View
    centred: bool
    eps: float
    weight: np.ndarray | None
    bias: np.ndarray | None
    place: str


_DIRECT: Mapping[str, StepKind] = {"Add": "shift", "Sum": "shift", "Sub": "shift", "Mul": "scale", "Div": "scale"}


def step_of(at: Expression) -> Step:
    """The last step of an expression."""
    if at.kind == "norm":
        facts = at.facts
        (x,) = at.views
        norm = Norm(x, facts["centred"], facts["eps"], facts["weight"], facts["bias"], at.place)
        return Step("norm", x.expression, norm=norm)
    if at.kind == "softmax":
        (x,) = at.views
        return Step("softmax", x.expression) if x.order is None else Step("other")
    if at.kind != "elementwise":
        return Step("other")
    return _with_constant(at) or _of_one(at) or _of_two(at) or Step("other")


def _with_constant(at: Expression) -> Step | None:
    """One operation of a value and a constant."""
    op, args = at.facts["op"], at.args
    if op not in _DIRECT or len(args) != 2 or len(at.views) != 1:
        return None
    x, first = at.views[0].expression, isinstance(args[0], View)
    by = args[1] if first else args[0]
    assert isinstance(by, np.ndarray)
    if by.dtype.kind in "iub" or x.size != at.size:
        return None
    if op in ("Sub", "Div"):
        if not first:
            return None
        by = -by if op == "Sub" else 1 / by.astype(np.float64)
    return Step(_DIRECT[op], x, by=by)


def _of_one(at: Expression) -> Step | None:
    """A function of one expression."""
    source = source_of(at)
    if source is None or source.size != at.size:
        return None
    if (found := activation_of(at, source)) is not None:
        return Step("activation", source, name=found[0], factor=found[1])
    if centres(at, source):
        return Step("centre", source)
    if (facts := norm_of(at, source)) is not None:
        dtype = _dtype(at)
        weight, bias = (None if part is None else part.astype(dtype) for part in (facts.weight, facts.bias))
        weight = None if weight is not None and (weight == 1).all() else weight
        bias = None if bias is not None and not bias.any() else bias
        x = View(source, source.shape)
        return Step("norm", source, norm=Norm(x, facts.centred, facts.eps, weight, bias, at.place))
    if is_softmax(at, source):
        return Step("softmax", source)
    return Step("unit", source) if is_unit(at, source) else None


def _of_two(at: Expression) -> Step | None:
    views = at.views
    if len(at.args) != 2 or len(views) != 2 or any(view.size != at.size for view in views):
        return None
    kinds: Mapping[str, StepKind] = {"Add": "sum", "Sum": "sum", "Mul": "multiply"}
    kind = kinds.get(at.facts["op"])
    return None if kind is None else Step(kind, views[0].expression, views[1].expression)


def _dtype(at: Expression) -> np.dtype:
    """The widest dtype of the constants in an expression."""
    found: list[np.dtype] = []
    waiting = [at]
    for _ in range(20):
        if not waiting:
            break
        now = waiting.pop(0)
        found += [arg.dtype for arg in now.args if isinstance(arg, np.ndarray) and arg.dtype.kind not in "iub"]
        waiting += [arg.expression for arg in now.views]
    return max(found, key=lambda dtype: dtype.itemsize, default=np.dtype(np.float32))
