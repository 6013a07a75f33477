"""Reads expressions as layers: linear, norm, activation, sum, product, scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conversion.graph.expression import Expression, View, rows_of, view_of
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.steps import Norm, Step, step_of


@dataclass(frozen=True, eq=False)
class Linear:
    """``x @ kernel + bias``."""

    x: View
    kernel: np.ndarray  # (inputs, outputs)
    bias: np.ndarray | None
    place: str


class Layers:
    """Reads expressions as layers; remembers what each one is."""

    def __init__(self) -> None:
        self._steps: dict[int, Step] = {}

    def step(self, at: Expression) -> Step:
        """The last step of an expression."""
        if at.number not in self._steps:
            self._steps[at.number] = step_of(at)
        return self._steps[at.number]

    def linear(self, at: Expression) -> Linear | None:
        """The linear layer whose output is ``at``, with its bias; ``None`` for anything else."""
        if at.kind == "linear":
            (x,) = at.views
            return Linear(x, at.facts["kernel"], None, at.place)
        if at.kind == "select":
            return self._linear_of_rows(at)
        step = self.step(at)
        if step.kind not in ("shift", "scale") or step.x is None or step.by is None:
            return None
        inner = self.linear(step.x)
        if inner is None:
            return None
        outputs = inner.kernel.shape[1]
        if step.kind == "shift" and (by := vector(step.by, outputs)) is not None:
            return Linear(inner.x, inner.kernel, by if inner.bias is None else inner.bias + by, inner.place)
        if step.kind == "scale" and step.by.size == 1:
            factor = step.by.reshape(()).astype(inner.kernel.dtype)
            bias = None if inner.bias is None else inner.bias * factor
            return Linear(inner.x, inner.kernel * factor, bias, inner.place)
        return None

    def _linear_of_rows(self, at: Expression) -> Linear | None:
        """The layer whose rows ``at`` puts into another order, as the same layer on rows in that order.

        ``torch.nn.MultiheadAttention`` computes on (tokens, images, D), and turns its result back.
        """
        bases = at.facts["bases"]
        inner = self.linear(bases[0]) if len(bases) == 1 else None
        if inner is None:
            return None
        inputs, outputs = inner.kernel.shape
        rows = rows_of(View(bases[0], at.shape, at.facts["order"].reshape(at.shape)), outputs)
        if rows is None:
            return None
        order = inner.x.elements().reshape(-1, inputs)[rows]
        return Linear(view_of(inner.x.expression, order), inner.kernel, inner.bias, inner.place)

    def terms(self, at: Expression) -> tuple[Expression, Expression, np.ndarray | None] | None:
        """The two terms of a sum, and the bias of a linear layer if it is added to the sum."""
        step = self.step(at)
        if step.kind == "sum" and step.x is not None and step.y is not None:
            return step.x, step.y, None
        if step.kind == "shift" and step.x is not None and step.by is not None:
            inner = self.step(step.x)
            by = vector(step.by, at.shape[-1]) if at.shape else None
            if inner.kind == "sum" and inner.x is not None and inner.y is not None and by is not None:
                return inner.x, inner.y, by
        return None

    def norm(self, at: Expression) -> Norm | None:
        """The norm whose output is ``at``, with its weight and bias; ``None`` for anything else."""
        weight = bias = None
        step = self.step(at)
        width = at.shape[-1] if at.shape else 0
        if step.kind == "shift" and step.by is not None and step.x is not None:
            bias = vector(step.by, width)
            step = self.step(step.x) if bias is not None else step
        if step.kind == "scale" and step.by is not None and step.x is not None and step.by.size == width:
            weight = vector(step.by, width)
            step = self.step(step.x) if weight is not None else step
        found = step.norm
        if found is None:
            return None
        if weight is not None or bias is not None:
            if found.bias is not None or (weight is not None and found.weight is not None):
                return None  # this scale or shift is not part of a norm
            weight = found.weight if weight is None else weight
            found = Norm(found.x, found.centred, found.eps, weight, bias, found.place)
        if not found.centred and found.x.order is None:
            before = self.step(found.x.expression)
            if before.kind == "centre" and before.x is not None:
                x = View(before.x, before.x.shape)
                return Norm(x, True, found.eps, found.weight, found.bias, found.place)
        return found

    def scaled(self, at: Expression) -> tuple[Expression, float]:
        """The expression without its scalar factors and steps that change nothing, and the factors' product."""
        factor = 1.0
        while True:
            step = self.step(at)
            if step.x is None:
                return at, factor
            if step.kind == "scale" and step.by is not None and step.by.size == 1:
                factor *= float(step.by.reshape(()))
            elif step.kind == "activation" and step.name == "identity":
                factor *= step.factor
            elif step.kind != "shift" or step.by is None or step.by.any():
                return at, factor
            at = step.x

    def activation(self, view: View) -> tuple[View, str, float] | None:
        """The input of an activation, its name, and the scalar factor on its output; ``None`` for anything else."""
        factor = 1.0
        while True:
            at, order = unselected(view)
            if at is None or order is None:
                return None
            inner, by = self.scaled(at)
            factor *= by
            step = self.step(inner)
            if step.kind == "activation" and step.x is not None:
                return view_as(step.x, view.shape, order), step.name, factor * step.factor
            if inner is at:
                return None
            view = view_as(inner, view.shape, order)

    def columns(self, view: View, width: int) -> tuple[Linear, np.ndarray] | None:
        """The linear layer of which a view has some outputs, and the output that each element of a row is.

        Args:
            view: (…, rows, width), or another shape with the layer's rows in the same order.
            width: outputs that the view takes from each row.
        """
        added: np.ndarray | None = None
        while True:
            at, order = unselected(view)
            if at is None or order is None:
                return None
            layer, step = self.linear(at), self.step(at)
            if layer is not None or step.kind != "shift" or step.x is None or step.by is None:
                break
            by = vector(step.by, at.shape[-1])
            if by is None:
                return None
            by = by[order.reshape(-1, width)[0] % at.shape[-1]]  # a bias on some of the outputs
            added = by if added is None else added + by
            view = View(step.x, view.shape, order)
        if layer is None:
            return None
        outputs = layer.kernel.shape[1]
        order = order.reshape(-1, width)
        if order.shape[0] * layer.kernel.shape[0] != layer.x.size:
            return None
        taken = order[0]
        if taken.max(initial=0) >= outputs or not np.array_equal(
            order, np.arange(len(order))[:, None] * outputs + taken
        ):
            return None
        if added is None:
            return layer, taken
        bias = added if layer.bias is None else layer.bias[taken] + added
        return Linear(layer.x, layer.kernel[:, taken], bias, layer.place), np.arange(width)


def in_own_order(view: View, place: str) -> Expression:
    """The expression of a view that has all of its elements, in order."""
    if view.order is not None:
        raise NotUnderstoodError(f"The graph's {place} reads some tokens or channels, where all were expected.")
    return view.expression


def view_as(at: Expression, shape: tuple[int, ...], order: np.ndarray) -> View:
    """A view with this order of elements; the identity is stored as ``None``."""
    return View(at, shape, view_of(at, order).order)


def unselected(view: View) -> tuple[Expression, np.ndarray] | tuple[None, None]:
    """The one expression from which a view takes its elements, and their indices; ``None`` twice for several."""
    at, order = view.expression, view.elements()
    while at.kind == "select":
        order = at.facts["order"].reshape(-1)[order]
        if len(at.facts["bases"]) != 1:
            return None, None
        (at,) = at.facts["bases"]
    return at, order


def vector(array: np.ndarray, width: int) -> np.ndarray | None:
    """A constant that is the same for each row, as (width,); ``None`` for any other."""
    if array.size == width and array.shape[-1:] == (width,):
        return array.reshape(-1)
    return np.full(width, array.reshape(-1)[0], array.dtype) if array.size == 1 else None
