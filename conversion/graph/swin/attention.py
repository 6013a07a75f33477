"""Attention within windows: which tokens each window holds, its layers, and what is added to its scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conversion.graph.expression import Expression, View
from conversion.graph.fold import fold
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.heads import in_words, merge_order
from conversion.graph.layers import Layers, Linear, unselected
from conversion.graph.swin.rows import rows, through


@dataclass(frozen=True, eq=False)
class Operand:
    """Queries, keys or values of all windows."""

    source: Expression
    """The tokens from which they are computed."""
    tokens: np.ndarray  # (windows of a batch, n)
    """Which of them; -1 for padding."""
    kernel: np.ndarray  # (D, h d)
    bias: np.ndarray | None  # (h d,)
    unit: bool
    """Whether they are divided by their lengths."""
    scale: np.ndarray
    """() or (h,)."""


@dataclass(frozen=True, eq=False)
class Addend:
    """What is added to scores: the view of the graph, or a constant, and the same as numbers."""

    numbers: np.ndarray  # (windows of a batch, h, n, n), or broadcast to it
    view: View | None


@dataclass(frozen=True, eq=False)
class WindowAttention:
    """``softmax(scale q kᵀ + bias) v`` within windows."""

    query: Operand
    key: Operand
    value: Operand
    heads: int
    scale: np.ndarray
    """() or (h,)."""
    bias: np.ndarray | None  # (windows of a batch, h, n, n)
    """All that is added to the scores."""
    addends: tuple[Addend, ...]
    order: np.ndarray  # (h d,)
    """For each input of the next layer, its index if heads are concatenated in order."""
    place: str


def is_windowed(at: Expression, layers: Layers) -> bool:
    """Whether a product multiplies values by attention weights whose scores have something added."""
    if at.kind != "product" or len(at.views) != 2:
        return False
    soft, _ = layers.scaled(at.views[0].expression)
    step = layers.step(soft)
    if step.kind != "softmax" or step.x is None:
        return False
    inner, _ = layers.scaled(step.x)
    return inner.kind == "elementwise" and inner.facts["op"] == "Add"


def attention_of(merged: View, width: int, layers: Layers) -> WindowAttention | None:
    """The attention whose concatenated heads are the view; ``None`` if the view is not a product of attention weights.

    Args:
        merged: what the output projection reads, (…, D).
        width: D.
        layers: shared by all readers of a graph.

    Raises:
        NotUnderstoodError: if it is, and something about it is not a Swin Transformer's.
    """
    at, order = unselected(merged)
    if at is None or order is None or at.kind != "product":
        return None
    weights, value = at.views
    soft, factor = layers.scaled(weights.expression)
    step = layers.step(soft)
    if weights.order is not None or step.kind != "softmax" or step.x is None or factor != 1.0:
        raise NotUnderstoodError(
            f"The graph's {at.place} multiplies values by {in_words(soft)}, where a softmax was expected."
        )
    n, d = at.shape[-2:]
    if width % d or at.size % (n * width):
        raise NotUnderstoodError(f"The graph's {at.place} attends in heads of {d} channels, of {width}.")
    heads, windows = width // d, at.size // (n * width)
    scores, scale, bias, addends = _scores(step.x, (windows, heads, n, n), layers)
    if scores.kind != "product":
        raise NotUnderstoodError(
            f"The graph's {soft.place} is the softmax of {in_words(scores)}, where products of queries and keys with "
            "constants added were expected."
        )
    query, key = scores.views
    shape = (windows, heads, n, d)
    keys = np.swapaxes(key.elements(), -1, -2)
    q, k, v = (
        _operand(view, shape, layers, at.place) for view in (query, View(key.expression, keys.shape, keys), value)
    )
    if v.unit or (v.scale != 1).any() or q.unit != k.unit:
        raise NotUnderstoodError(f"The graph's {at.place} scales values, or one of queries and keys alone.")
    for other in (k, v):
        if other.source is not q.source or not np.array_equal(other.tokens, q.tokens):
            raise NotUnderstoodError(
                f"The graph's {at.place} attends from windows of some tokens to windows of others."
            )
    merged_order = merge_order(order, windows, heads, n, d, at.place)
    return WindowAttention(q, k, v, heads, scale * q.scale * k.scale, bias, addends, merged_order, at.place)


def _scores(
    at: Expression, shape: tuple[int, ...], layers: Layers
) -> tuple[Expression, np.ndarray, np.ndarray | None, tuple[Addend, ...]]:
    """The products in the scores, their factor, and what is added."""
    scale, total = np.ones(()), None
    addends: list[Addend] = []
    while at.kind == "elementwise":
        step = layers.step(at)
        if step.kind == "scale" and step.x is not None and step.by is not None:
            scale = scale * _by_head(step.by, at, shape)
            at = step.x
            continue
        added = _added(at)
        if added is None:
            break
        x, other = added
        given = fold(other) if isinstance(other, View) else other
        whole = np.broadcast_to(given, at.shape).reshape(shape) * scale.reshape(-1, 1, 1)
        total = whole if total is None else total + whole
        addends.append(Addend(given, other if isinstance(other, View) else None))
        at = x
    return at, scale, total, tuple(addends)


def _added(at: Expression) -> tuple[Expression, View | np.ndarray] | None:
    """What varies in a sum, and what does not."""
    if at.facts["op"] not in ("Add", "Sum") or len(at.args) != 2:
        return None
    varying = [arg for arg in at.args if isinstance(arg, View) and arg.expression.varies]
    fixed = [arg for arg in at.args if not (isinstance(arg, View) and arg.expression.varies)]
    if len(varying) != 1 or len(fixed) != 1 or varying[0].order is not None or varying[0].size != at.size:
        return None
    return varying[0].expression, fixed[0]


def _by_head(by: np.ndarray, at: Expression, shape: tuple[int, ...]) -> np.ndarray:
    """A factor on (windows, heads, …) as one number, or one for each head."""
    if by.size == 1:
        return by.reshape(()).astype(np.float64)
    whole = np.broadcast_to(by, at.shape).reshape(shape[0], shape[1], -1)
    first = whole[0, :, 0]
    if not (whole == first[:, None]).all():
        raise NotUnderstoodError(f"The graph's {at.place} scales attention by more than one number for each head.")
    return first.astype(np.float64)


def _operand(view: View, shape: tuple[int, ...], layers: Layers, place: str) -> Operand:
    """(windows, heads, n, d) of a batch."""
    windows, heads, n, d = shape
    if view.size != windows * heads * n * d:
        raise NotUnderstoodError(f"The graph's {place} attends to {in_words(view.expression)} of another size.")
    scale, unit = np.ones(()), False
    bias = np.zeros((heads, d))
    biased = False
    while True:
        at, order = unselected(view)
        if at is None or order is None:
            raise NotUnderstoodError(f"The graph's {place} attends to several values put together.")
        step = layers.step(at)
        if step.kind != "scale" and (linear := layers.linear(at)) is not None:
            break
        inner = step.x
        if inner is None:
            raise _no_layer(at, place)
        order = order.reshape(shape)
        if step.kind == "scale" and step.by is not None and not biased and not unit:
            scale = scale * _taken(step.by, at, order)
        elif step.kind == "unit" and _are_rows(order, at.shape[-1]) and not biased:
            unit = True
        elif step.kind == "shift" and step.by is not None:
            whole = np.broadcast_to(step.by, at.shape).reshape(-1)[order]
            if not (whole == whole[:1, :, :1]).all():
                raise NotUnderstoodError(f"The graph's {at.place} adds other numbers to some tokens than to others.")
            bias, biased = bias + whole[0, :, 0], True
        else:
            raise _no_layer(at, place)
        view = View(inner, shape, order)
    return _from_layer(linear, order.reshape(shape), bias if biased else None, unit, scale, place)


def _from_layer(
    linear: Linear, order: np.ndarray, bias: np.ndarray | None, unit: bool, scale: np.ndarray, place: str
) -> Operand:
    windows, heads, n, d = order.shape
    outputs = linear.kernel.shape[1]
    by_row = order.transpose(0, 2, 1, 3).reshape(windows * n, heads * d)
    number, columns = by_row[:, 0] // outputs, by_row[0] % outputs
    found = rows(linear.x)
    if found is None or not np.array_equal(by_row, number[:, None] * outputs + columns):
        raise NotUnderstoodError(
            f"The graph's {place} attends to {in_words(linear.x.expression)}, where whole tokens were expected."
        )
    source, tokens = found
    own = None if linear.bias is None else linear.bias[columns]
    if bias is not None:
        more = bias.reshape(-1).astype(linear.kernel.dtype)
        own = more if own is None else own + more
    return Operand(source, through(number, tokens).reshape(windows, n), linear.kernel[:, columns], own, unit, scale)


def _taken(by: np.ndarray, at: Expression, order: np.ndarray) -> np.ndarray:
    """A factor on the elements of ``at`` as one number, or one for each head, of those in ``order``."""
    if by.size == 1:
        return by.reshape(()).astype(np.float64)
    whole = np.broadcast_to(by, at.shape).reshape(-1)[order]
    first = whole[0, :, 0, 0]
    if not (whole == first[:, None, None]).all():
        raise NotUnderstoodError(f"The graph's {at.place} scales attention by more than one number for each head.")
    return first.astype(np.float64)


def _are_rows(order: np.ndarray, width: int) -> bool:
    """Whether each head of each token is a row of an expression, which is divided by its own length."""
    first = order[..., :1]
    return order.shape[-1] == width and not (first % width).any() and np.array_equal(order, first + np.arange(width))


def _no_layer(at: Expression, place: str) -> NotUnderstoodError:
    return NotUnderstoodError(
        f"The graph's {place} attends to {in_words(at)}, where heads of a linear layer's outputs were expected."
    )
