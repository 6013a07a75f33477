"""Builds expressions: computes constants, turns movements of elements into index arrays, and records all else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conversion.graph.broadcasting import axis_back, axis_last, by_rows, compressed, unspread
from conversion.graph.elementwise import FUNCTIONS, REDUCTIONS
from conversion.graph.expression import Expression, Kind, View, is_permutation, rows_of, starts, view_of, whole
from conversion.graph.fold import fold
from vit_spec import VitportError

Value = View | np.ndarray
"""A value of the graph: computed from the image, or a constant."""
_LEAST_ELEMENTS = 1 << 24
"""Elements that a value may always have."""
_MOST_FUNCTIONS = 32
"""Longest chain of functions that a selection of elements is moved through."""
_SHAPE_ALONE = ("Identity", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


class Builder:
    """Makes expressions for the nodes of one graph.

    Args:
        nbytes: size of its files; a value may have at most 16 million elements more than that.
    """

    def __init__(self, nbytes: int) -> None:
        self.place = ""
        """The node that is being read, in words."""
        self.most = nbytes + _LEAST_ELEMENTS
        self.unknown_places: list[str] = []
        """The nodes that were not understood, in order."""
        self.dequantised = 0
        """Weights that were stored as integers with scales."""
        self._left = 64 * self.most
        self._selected: dict[tuple[int, tuple[int, ...]], list[tuple[np.ndarray, View]]] = {}

    def allow(self, shape: tuple[int, ...]) -> None:
        """Refuse values out of proportion to the file, one by one and all together."""
        size = math.prod(shape)
        self._left -= size
        if size > self.most or self._left < 0:
            raise VitportError(
                f"The graph's {self.place} makes {size} numbers of shape {shape}, more than a file of this size can "
                "need: check its origin."
            )

    def make(
        self,
        kind: Kind,
        shape: tuple[int, ...],
        args: Sequence[Value] = (),
        *,
        varies: bool | None = None,
        **facts: Any,
    ) -> View:
        """A view of all of a new expression."""
        if varies is None:
            varies = any(arg.expression.varies for arg in args if isinstance(arg, View))
        return whole(Expression(kind, shape, tuple(args), facts, self.place, varies=varies))

    def constant(self, array: np.ndarray) -> View:
        """A constant as a view."""
        return self.make("constant", array.shape, varies=False, array=array)

    def unknown(self, args: Sequence[Value], what: str = "") -> View:
        """A value that is not understood; neither is anything that is computed from it."""
        if not any(is_unknown(arg) for arg in args):
            self.unknown_places.append(self.place + what)
        return self.make("unknown", (), [arg for arg in args if isinstance(arg, View)])

    def elementwise(self, op: str, args: Sequence[Value], **attributes: Any) -> Value:
        """``FUNCTIONS[op]``, with broadcasting. A permutation of its inputs becomes one of its output where it can."""
        shape = np.broadcast_shapes(*(arg.shape for arg in args))
        self.allow(shape)
        args = [unspread(arg) if isinstance(arg, View) else arg for arg in args]
        arrays = [arg for arg in args if isinstance(arg, np.ndarray)]
        if op == "Add" and len(arrays) == 2 and all(it.shape == shape and it.dtype.kind == "f" for it in arrays):
            args = [self.constant(it) for it in arrays] if len(shape) == 3 else args  # a token and its position
        if op == "Relu" and all(it.ndim > 1 and it.dtype.kind == "f" for it in arrays):  # a layer of constants: it has
            args = [self.constant(it) if isinstance(it, np.ndarray) else it for it in args]  # to be told from results
        views = [arg for arg in args if isinstance(arg, View)]
        if not views:
            with np.errstate(all="ignore"):
                return np.asarray(FUNCTIONS[op](*args, **attributes))
        if (made := by_rows(self, op, args, shape, attributes)) is not None:
            return made
        facts = {"op": op, "attributes": attributes}
        first = next((view for view in views if not view.whole), None)
        if first is None:
            return self.make("elementwise", shape, args, **facts)
        inner = [self._behind(arg, first) for arg in args] if first.shape == shape else [None]
        if any(arg is None for arg in inner):
            return self.make("elementwise", shape, [self.selected(arg) for arg in args], **facts)
        below = self.make("elementwise", first.expression.shape, [arg for arg in inner if arg is not None], **facts)
        return View(below.expression, shape, first.order)

    def _behind(self, arg: Value, view: View) -> Value | None:
        """What ``arg`` is to the view's expression, so that applying the view's order gives ``arg`` back."""
        if isinstance(arg, View):
            same = (
                arg.shape == view.shape
                and arg.expression.shape == view.expression.shape
                and (arg.order is view.order or (arg.order is not None and np.array_equal(arg.order, view.elements())))
                and arg.expression.size == view.size
            )
            return whole(arg.expression) if same else None
        if arg.size == 1:
            return arg.reshape(())
        if view.order is not None and not is_permutation(view.order, view.expression.size):
            return None
        spread = np.empty(view.size, arg.dtype)
        spread[view.elements().reshape(-1)] = np.broadcast_to(arg, view.shape).reshape(-1)
        return compressed(spread.reshape(view.expression.shape))

    def selected(self, value: Value, depth: int = 0) -> Value:
        """The value as an expression of its own, if it is a reordering of another's elements."""
        if not isinstance(value, View) or value.order is None:
            return value
        known = self._selected.setdefault((value.expression.number, value.shape), [])
        for order, view in known:
            if order is value.order or np.array_equal(order, value.order):
                return view
        known.append((value.order, self._selected_below(value, depth)))
        return known[-1][1]

    def _selected_below(self, view: View, depth: int) -> View:
        """Selects elements before elementwise functions rather than after them."""
        at, order = view.expression, view.order
        assert order is not None
        if at.kind == "select":
            return self._select(at.facts["bases"], at.facts["order"].reshape(-1)[order])
        alone = len({arg.expression.number for arg in at.views}) == 1 and all(
            arg.shape == at.shape and arg.order is None if isinstance(arg, View) else arg.size == 1 for arg in at.args
        )
        if at.kind != "elementwise" or not alone or depth >= _MOST_FUNCTIONS:
            return self._select((at,), order)
        args = [
            self.selected(View(arg.expression, view.shape, order), depth + 1) if isinstance(arg, View) else arg
            for arg in at.args
        ]
        return self.make("elementwise", view.shape, args, **at.facts)

    def _select(self, bases: tuple[Expression, ...], order: np.ndarray) -> View:
        return self.make("select", order.shape, [whole(base) for base in bases], bases=bases, order=order)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """The values concatenated along an axis."""
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        self.allow((sum(math.prod(value.shape) for value in values),))
        if len(arrays) == len(values):
            return np.concatenate(arrays, axis)
        bases: list[Expression] = []
        orders: list[np.ndarray] = []
        for view in (value if isinstance(value, View) else self.constant(value) for value in values):
            inside = view.expression.facts["bases"] if view.expression.kind == "select" else (view.expression,)
            order = view.elements()
            if view.expression.kind == "select":
                order = view.expression.facts["order"].reshape(-1)[order]
            bases += [base for base in inside if not any(base is known for known in bases)]
            begins = starts(bases)
            own = [begins[next(at for at, known in enumerate(bases) if known is base)] for base in inside]
            ends = np.cumsum([base.size for base in inside])
            part = np.searchsorted(ends, order, side="right")
            orders.append(order - (ends - [base.size for base in inside])[part] + np.array(own)[part])
        order = np.concatenate(orders, axis)
        return view_of(bases[0], order) if len(bases) == 1 else self._select(tuple(bases), order)

    def moved(self, value: Value, op: str, move: Callable[[np.ndarray], Sequence[np.ndarray]]) -> list[Value]:
        """The value with its elements moved as ``move`` moves those of an array."""
        if isinstance(value, View) and value.order is None and op in _SHAPE_ALONE:
            (shaped,) = move(np.broadcast_to(np.zeros((), np.int8), value.shape))
            return [View(value.expression, shaped.shape)]
        results = move(value if isinstance(value, np.ndarray) else value.elements())
        for result in results:
            self.allow(result.shape)
        if isinstance(value, np.ndarray):
            return [np.asarray(result) for result in results]
        return [view_of(value.expression, result) for result in results]

    def transposed(self, value: Value) -> Value:
        """The last two axes exchanged."""
        return self.moved(value, "Transpose", lambda x: (x.swapaxes(-1, -2),))[0]

    def reshaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        """The value in another shape."""
        return self.moved(value, "Reshape", lambda x: (x.reshape(shape),))[0]

    def reduce(self, op: str, x: Value, axes: Sequence[int] | None, keepdims: bool) -> Value:
        """``REDUCTIONS[op]`` over axes, all if ``None``."""
        axes = tuple(range(len(x.shape))) if axes is None else tuple(sorted(axis % len(x.shape) for axis in axes))
        if isinstance(x, np.ndarray):
            return np.asarray(REDUCTIONS[op](x, axis=axes, keepdims=keepdims))
        if keepdims and len(axes) == 1 and axes[0] < len(x.shape) - 1:  # as optimisers leave it, who move transposes
            return axis_back(self, self.reduce(op, axis_last(self, x, axes[0], len(x.shape)), (-1,), True), axes[0])
        x = self.selected(x)
        kept = tuple(1 if at in axes else side for at, side in enumerate(x.shape))
        made = self.make("reduce", kept, [x], op=op, axes=axes)
        return made if keepdims else View(made.expression, tuple(s for at, s in enumerate(x.shape) if at not in axes))

    def by_rows(self, kind: Kind, x: View, width: int, **facts: Any) -> View:
        """An operation on the last axis, with rows of ``width`` as results; the order of the rows is kept."""
        inputs = x.shape[-1]
        rows = None if x.order is None else rows_of(x, inputs)
        if rows is None or not is_permutation(rows, x.expression.size // inputs):
            return self.make(kind, (*x.shape[:-1], width), [x if kind == "linear" else self.selected(x)], **facts)
        made = self.make(kind, (*x.expression.shape[:-1], width), [whole(x.expression)], **facts)
        return View(made.expression, (*x.shape[:-1], width), rows[..., None] * width + np.arange(width))

    def linear(self, x: View, kernel: np.ndarray) -> View:
        """``x @ kernel``, a constant (inputs, outputs)."""
        if x.shape[-1:] != kernel.shape[:1]:
            raise ValueError(f"{x.shape} and {kernel.shape} cannot be multiplied")
        self.allow((*x.shape[:-1], kernel.shape[1]))
        return self.by_rows("linear", x, kernel.shape[1], kernel=kernel)

    def matmul(self, a: Value, b: Value) -> Value:
        """The product of the last two axes, as numpy's ``matmul``; a linear layer where one side is constant."""
        if isinstance(b, View) and not b.expression.varies and len(b.shape) == 2 and not is_unknown(b):
            b = fold(b)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if a.dtype.kind in "iu" or b.ndim != 2 or min(b.shape) < 2 or a.ndim < 2:
                self.allow((*a.shape[:-1], *b.shape[-1:]))
                return np.matmul(a, b)
            return self.linear(self.constant(a), b)  # left open: a query of learned pooling keeps its layer
        if isinstance(b, np.ndarray) and isinstance(a, View):
            return self._times_constant(a, b)
        if isinstance(a, np.ndarray) and a.ndim == 2:
            return self.transposed(self.linear(_view(self.transposed(b)), a.T))
        a, b = (value if isinstance(value, View) else self.constant(value) for value in (a, b))
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        if a.shape[-1] != b.shape[-2]:
            raise ValueError(f"{a.shape} and {b.shape} cannot be multiplied")
        return self.make("product", shape, [a, b])

    def _times_constant(self, a: View, b: np.ndarray) -> Value:
        if b.ndim == 1:
            return self.moved(self.linear(a, b[:, None]), "Squeeze", lambda x: (x.squeeze(-1),))[0]
        *stack, inputs, outputs = b.shape
        if math.prod(stack) == 1:
            shape = (*(1,) * max(0, b.ndim - len(a.shape)), *a.shape[:-1], outputs)
            return self.reshaped(self.linear(a, b.reshape(inputs, outputs)), shape)
        count = len(stack)
        if len(a.shape) < 2 or any(side != 1 for side in a.shape[-2 - count : -2]):
            return self.matmul(a, self.constant(b))
        before, N = a.shape[: max(0, len(a.shape) - 2 - count)], a.shape[-2]
        kernel = np.moveaxis(b, -2, 0).reshape(inputs, -1)  # a matrix for each head, side by side
        y = self.linear(_view(self.reshaped(a, (*before, N, inputs))), kernel)
        at = len(before)
        return self.moved(
            y, "", lambda x: (np.moveaxis(x.reshape(*before, N, *stack, outputs), at, at + count),)
        )[0]  # fmt: skip

    def softmax(self, x: Value, axis: int = -1) -> Value:
        """The softmax over one axis."""
        if isinstance(x, np.ndarray):
            e = np.exp(x - x.max(axis, keepdims=True))
            return e / e.sum(axis, keepdims=True)
        if axis % len(x.shape) != len(x.shape) - 1:
            last = _view(self.moved(x, "", lambda y: (np.moveaxis(y, axis, -1),))[0])
            return self.moved(self.softmax(last), "", lambda y: (np.moveaxis(y, -1, axis),))[0]
        return self.by_rows("softmax", x, x.shape[-1])

    def norm(
        self, x: Value, weight: np.ndarray | None, bias: np.ndarray | None, eps: float, *, centred: bool = True
    ) -> View:
        """LayerNorm over the last axis, or RMSNorm if not ``centred``."""
        x = x if isinstance(x, View) else self.constant(x)
        return self.by_rows("norm", x, x.shape[-1], weight=weight, bias=bias, eps=float(eps), centred=centred)


def is_unknown(value: Value) -> bool:
    """Whether a value is computed from something that was not understood."""
    return isinstance(value, View) and value.expression.kind == "unknown"


def _view(value: Value) -> View:
    assert isinstance(value, View)
    return value
