"""Multi-head attention in a graph: heads, scale, and the layers' outputs that are queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conversion.graph.expression import Expression, View, numbers
from conversion.graph.fold import fold
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.heads import in_words, merge_order, taken
from conversion.graph.layers import Layers, Linear, Norm, unselected
from conversion.graph.vit.relative import added
from conversion.graph.vit.turned import Turn, unturned


@dataclass(frozen=True, eq=False)
class Operand:
    """Queries, keys or values: outputs of a linear layer, head by head."""

    layer: Linear
    columns: np.ndarray  # (h d,)
    norm: Norm | None
    scale: float
    added: np.ndarray | None = None  # (h d,)
    """A bias that is added to the heads, not by the layer."""
    turn: Turn | None = None
    """By rotary positions."""

    @property
    def kernel(self) -> np.ndarray:
        """(D, h d)."""
        return taken(self.layer.kernel, self.columns)

    @property
    def bias(self) -> np.ndarray | None:
        own = None if self.layer.bias is None else taken(self.layer.bias, self.columns)
        return own if self.added is None else self.added if own is None else own + self.added


@dataclass(frozen=True, eq=False)
class Attention:
    """``softmax(scale q kᵀ) v`` of all heads."""

    query: Operand
    key: Operand
    value: Operand
    heads: int
    scale: float
    order: np.ndarray  # (h d,)
    """For each input of the next layer, its index if heads are concatenated in order."""
    place: str
    bias: np.ndarray | None = None
    """Added to the scores of all images, (h, N, N)."""


def attention_of(merged: View, layers: Layers, batch: int) -> Attention | None:
    """The attention whose concatenated heads are the view; ``None`` if the view is not a matrix product.

    Raises:
        NotUnderstoodError: if it is one, but not the attention of a plain ViT.
    """
    at, order = unselected(merged)
    if at is None or order is None or at.kind != "product":
        return None
    weights, value = at.views
    soft, factor = layers.scaled(weights.expression)
    step = layers.step(soft)
    if weights.order is not None or step.kind != "softmax" or step.x is None:
        raise NotUnderstoodError(
            f"The graph's {at.place} multiplies values by {in_words(soft)}, where the softmax of scaled products of "
            "queries and keys was expected."
        )
    scores, scale, turned, bias = _scores(step.x, layers)
    if factor != 1.0:
        raise NotUnderstoodError(f"The graph's {at.place} multiplies attention weights by {factor}, which no ViT does.")
    if scores.kind != "product":
        raise NotUnderstoodError(
            f"The graph's {soft.place} is the softmax of {in_words(scores)}, where scaled products of queries and keys "
            "alone, or with biases by relative position, were expected: masks on attention are not read."
        )
    query, key = scores.views if not turned else tuple(_turned(view) for view in reversed(scores.views))
    N, d = at.shape[-2:]
    heads = at.size // (N * d * batch)
    if heads * N * d * batch != at.size:
        raise NotUnderstoodError(f"The graph's {at.place} mixes images of a batch in attention.")
    q, k, v = (_operand(view, layers, heads, at.place) for view in (query, _turned(key), value))
    if v.scale != 1.0 or v.norm is not None or v.turn is not None:
        raise NotUnderstoodError(
            f"The graph's {at.place} scales, normalises or turns the values of attention, which no ViT does."
        )
    if (q.turn is None) is not (k.turn is None):
        raise NotUnderstoodError(f"The graph's {at.place} turns queries or keys alone, which no rotary positions do.")
    merged_order = merge_order(order, batch, heads, N, d, at.place)
    return Attention(
        q, k, v, heads, scale * q.scale * k.scale, merged_order, at.place, _of_all_images(bias, heads, N, at.place)
    )


def _of_all_images(bias: np.ndarray | None, heads: int, tokens: int, place: str) -> np.ndarray | None:
    """What is added to the scores, (h, N, N)."""
    if bias is None:
        return None
    whole = np.broadcast_to(bias, (*(1,) * (4 - bias.ndim), *bias.shape) if bias.ndim < 4 else bias.shape)
    whole = whole.reshape(-1, *whole.shape[-3:])
    if whole.shape[-2:] != (tokens, tokens) or whole.shape[1] not in (1, heads) or not (whole == whole[:1]).all():
        raise NotUnderstoodError(f"The graph's {place} adds other numbers to the scores of each image.")
    return np.broadcast_to(whole[0], (heads, tokens, tokens))


def _scores(at: Expression, layers: Layers) -> tuple[Expression, float, bool, np.ndarray | None]:
    """What a softmax reads without what it does not see, a number added to all; its factor, whether the product is
    that of keys and queries, with its last axes exchanged afterwards, and what else is added."""
    scores, scale = layers.scaled(at)
    bias: np.ndarray | None = None
    while True:
        step, found = layers.step(scores), added(scores)
        if step.kind == "shift" and step.x is not None and step.by is not None and step.by.size == 1:
            inner = step.x
        elif found is not None:
            inner, by = found
            bias = by * scale if bias is None else bias + by * scale
        else:
            break
        scores, factor = layers.scaled(inner)
        scale *= factor
    product, order = unselected(View(scores, scores.shape))
    if product is None or order is None or product.kind != "product" or product is scores:
        return scores, scale, False, bias
    exchanged = np.array_equal(order, np.swapaxes(numbers(product.shape), -1, -2))
    return (product, scale, True, bias) if exchanged else (scores, scale, False, bias)


def _turned(view: View) -> View:
    """With its last two axes exchanged."""
    order = np.swapaxes(view.elements(), -1, -2)
    return View(view.expression, order.shape, order)


def _operand(view: View, layers: Layers, heads: int, place: str) -> Operand:
    """Queries, keys or values of all heads, (…, N, d)."""
    scale, norm, bias, turn = 1.0, None, None, None
    d = view.shape[-1]
    while True:
        at, order = unselected(view)
        if norm is None and bias is None and turn is None and (before := unturned(view, layers, heads)) is not None:
            view, turn, factor = before
            scale *= factor
            continue
        if at is None or order is None:
            break
        inner, factor = layers.scaled(at)
        found = layers.norm(inner) if bias is None else None
        if found is not None and norm is None and found.x.shape[-1] == d:
            norm, scale = found, scale * factor
            view = View(found.x.expression, view.shape, found.x.elements().reshape(-1)[order])
        elif inner is not at and bias is None and (norm is None or factor == 1.0):
            scale *= factor
            view = View(inner, view.shape, order)
        elif bias is None and layers.linear(at) is None and (parts := added(at)) is not None:
            inner, by = parts
            bias = _by_head(by, at, order, view, heads, place)
            view = View(inner, view.shape, order)
        else:
            break
    if not view.expression.varies and layers.linear(view.expression) is None:
        return _constant(fold(View(view.expression, view.shape, view.order)), heads, norm, scale, place)
    N = view.shape[-2]
    by_head = view.elements().reshape(-1, heads, N, d).transpose(0, 2, 1, 3).reshape(-1, heads * d)
    found_columns = layers.columns(View(view.expression, by_head.shape, by_head), heads * d)
    if found_columns is None:
        raise NotUnderstoodError(
            f"The graph's {place} attends to {in_words(view.expression)}, where heads of a linear layer's outputs were "
            "expected."
        )
    return Operand(*found_columns, norm, scale, bias, turn)


def _by_head(by: np.ndarray, at: Expression, order: np.ndarray, view: View, heads: int, place: str) -> np.ndarray:
    """What is added to all tokens of each head, (h d,)."""
    whole = np.broadcast_to(by, at.shape).reshape(-1)[order].reshape(-1, heads, *view.shape[-2:])  # (B, h, N, d)
    if not (whole == whole[:1, :, :1]).all():
        raise NotUnderstoodError(f"The graph's {place} attends to heads with other numbers added to each token.")
    return whole[0, :, 0].reshape(-1)


def _constant(array: np.ndarray, heads: int, norm: Norm | None, scale: float, place: str) -> Operand:
    """Queries that the exporter computed, as the outputs of an identity layer."""
    rows = array.reshape(-1, heads, array.shape[-2], array.shape[-1])
    if rows.shape[2] != 1 or not (rows == rows[:1]).all():
        raise NotUnderstoodError(f"The graph's {place} attends with constants other than one query.")
    row = rows[0].reshape(1, 1, -1)
    width = row.shape[-1]
    x = View(Expression("constant", row.shape, (), {"array": row}, place, varies=False), row.shape)
    return Operand(Linear(x, np.eye(width, dtype=row.dtype), None, place), np.arange(width), norm, scale)
