"""Rotary positions in a graph: queries and keys whose channels are turned in pairs, token by token.

Exporters write a turn in many ways: as products with two tables, as complex numbers, for all tokens or for patches
alone. All of them are sums of products with constants, so each element that attention reads is traced back to the
elements of the layer's outputs that it is a sum of, and their factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conversion.graph.expression import Expression, View, view_of
from conversion.graph.fold import fold
from conversion.graph.layers import Layers
from vit_spec.vit.rotary import Pairs

_SUMS = ("Add", "Sum", "Sub")
_PRODUCTS = ("Mul", "Div")
_MOST_TERMS = 8
"""More than any way of writing a turn has in one sum."""


@dataclass(frozen=True, eq=False)
class Turn:
    """The angles by which pairs of channels are turned."""

    cos: np.ndarray  # (h, N, d / 2)
    sin: np.ndarray
    pairs: Pairs
    near: float
    """How far the graph's numbers may be from exact ones."""


@dataclass(frozen=True)
class _Terms:
    """Each element as a sum of elements of a source times factors."""

    at: np.ndarray  # (terms, size)
    factor: np.ndarray  # (terms, size)


def unturned(view: View, layers: Layers, heads: int) -> tuple[View, Turn, float] | None:
    """What a view, (…, N, d), is before its pairs are turned, by what, and a factor on all; ``None`` if it is not that.

    Args:
        heads: h; the axes before N are images and heads.
    """
    found = _Reader(layers)
    if not found.turns(view.expression) or len(found.sources) != 1:
        return None
    (source,) = found.sources.values()
    terms = found.terms(view)
    if terms is None:
        return None
    d = view.shape[-1]
    layouts: tuple[tuple[Pairs, slice, slice], ...] = (
        ("halves", slice(0, d // 2), slice(d // 2, d)), ("neighbours", slice(0, d, 2), slice(1, d, 2)),
    )  # fmt: skip
    for pairs, first, second in layouts if d % 2 == 0 else ():
        if (pair := _pair(terms, d, first, second, found.near)) is None:
            continue
        cos, sin, factor, own = pair
        if not sin.any():  # a factor on all, and no turn
            return None
        order = np.empty((own.shape[1], d), np.int64)
        order[:, first], order[:, second] = own
        tables = [table.reshape(-1, heads, view.shape[-2], d // 2) for table in (cos, sin)]
        if any(np.abs(table - table[:1]).max() > found.near for table in tables):
            return None
        turn = Turn(tables[0][0], tables[1][0], pairs, found.near)
        return view_of(source, order.reshape(view.shape)), turn, factor
    return None


def _pair(
    terms: _Terms, d: int, first: slice, second: slice, near: float
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray] | None:
    """Cosines and sines (rows, d / 2), a factor, and the sources of both halves (2, rows, d / 2)."""
    at, factor = (part.reshape(len(part), -1, d) for part in (terms.at, terms.factor))
    both = np.concatenate([at[..., first], at[..., second]]), np.concatenate([factor[..., first], factor[..., second]])
    there = both[1] != 0
    low = np.where(there, both[0], np.iinfo(np.int64).max).min(0)
    high = np.where(there, both[0], -1).max(0)
    if (low >= high).any() or (there & (both[0] != low) & (both[0] != high)).any():
        return None

    def of(half: slice, index: np.ndarray) -> np.ndarray:
        return np.where(at[..., half] == index, factor[..., half], 0).sum(0)

    cos, sin = of(first, low), of(second, low)
    length = np.hypot(cos, sin)
    size = float(length.mean())
    alike = np.abs(length - size).max(), np.abs(of(second, high) - cos).max(), np.abs(of(first, high) + sin).max()
    if size == 0 or max(alike) > 4 * near * size:
        return None
    return cos / size, sin / size, size, np.stack([low, high])


class _Reader:
    """Follows sums of products with constants down to what they are computed from."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.sources: dict[int, Expression] = {}
        self.near = 1e-5
        self._known: dict[int, _Terms] = {}
        self._folded: dict[int, np.ndarray] = {}

    def turns(self, at: Expression) -> bool:
        """Whether there is a sum or a product between an expression and its sources, which are collected."""
        seen: set[int] = set()
        waiting, inside = [at], False
        while waiting:
            now = waiting.pop()
            if now.number in seen:
                continue
            seen.add(now.number)
            if now.kind == "select":
                waiting += now.facts["bases"]
            elif self._is_inner(now):
                inside = True
                waiting += [arg.expression for arg in now.views if arg.expression.varies]
            else:
                self.sources[now.number] = now
        return inside

    def _is_inner(self, at: Expression) -> bool:
        if at.kind != "elementwise" or self.layers.linear(at) is not None or self.layers.norm(at) is not None:
            return False
        varying = [isinstance(arg, View) and arg.expression.varies for arg in at.args]
        op = at.facts["op"]
        if op == "Neg" or (op in _SUMS and all(varying)):
            return True
        return op in _PRODUCTS and sum(varying) == 1 and (op == "Mul" or varying[0])

    def terms(self, view: View) -> _Terms | None:
        """The terms of a view's elements; ``None`` for too many."""
        waiting = [view.expression]
        while waiting:
            at = waiting[-1]
            if at.number in self._known:
                waiting.pop()
                continue
            inner = [] if at.number in self.sources else [
                it.expression for it in at.views if it.expression.varies and it.expression.number not in self._known
            ]  # fmt: skip
            if inner:
                waiting += inner
                continue
            found = self._terms(at)
            if found is None:
                return None
            self._known[at.number] = found
        return self._seen(view)

    def _seen(self, view: View) -> _Terms:
        whole = self._known[view.expression.number]
        if view.order is None:
            return whole
        order = view.order.reshape(-1)
        return _Terms(whole.at[:, order], whole.factor[:, order])

    def _terms(self, at: Expression) -> _Terms | None:
        if at.number in self.sources:
            return _Terms(np.arange(at.size, dtype=np.int64)[None], np.ones((1, at.size)))
        if at.kind == "select":
            parts = [self._constant_or_terms(View(base, base.shape)) for base in at.facts["bases"]]
            order = at.facts["order"].reshape(-1)
            return None if None in parts else _pruned(_beside([part for part in parts if part is not None], order))
        op, args = at.facts["op"], at.args
        if op in _PRODUCTS:
            (varying,) = (arg for arg in args if isinstance(arg, View) and arg.expression.varies)
            (fixed,) = (arg for arg in args if arg is not varying)
            by = self._constant(fixed).astype(np.float64)
            by = np.broadcast_to(1 / by if op == "Div" else by, at.shape).reshape(-1)
            terms = self._spread(varying, at.shape)
            return _pruned(_Terms(terms.at, terms.factor * by))
        signs = (-1,) if op == "Neg" else (1, -1) if op == "Sub" else (1,) * len(args)
        spread = [self._spread(arg, at.shape) for arg in args if isinstance(arg, View)]
        return _pruned(
            _Terms(
                np.concatenate([it.at for it in spread]),
                np.concatenate([sign * it.factor for sign, it in zip(signs, spread, strict=True)]),
            )
        )

    def _spread(self, view: View, shape: tuple[int, ...]) -> _Terms:
        """The terms of a view that is broadcast to a shape."""
        terms = self._seen(view)
        if view.shape == shape:
            return terms
        parts = (
            part.reshape(-1, *(1,) * (len(shape) - len(view.shape)), *view.shape) for part in (terms.at, terms.factor)
        )
        at, factor = (np.broadcast_to(part, (len(part), *shape)).reshape(len(part), -1) for part in parts)
        return _Terms(at, factor)

    def _constant_or_terms(self, view: View) -> _Terms | None:
        return self._seen(view) if view.expression.varies else None

    def _constant(self, value: View | np.ndarray) -> np.ndarray:
        if isinstance(value, View):
            number = value.expression.number
            if number not in self._folded:
                self._folded[number] = fold(View(value.expression, value.expression.shape))
            whole = self._folded[number]
            value = (whole.reshape(-1) if value.order is None else whole.reshape(-1)[value.order]).reshape(value.shape)
        if value.dtype.itemsize == 2 and value.size > 1:
            self.near = 4e-3
        return value


def _beside(parts: list[_Terms], order: np.ndarray) -> _Terms:
    """Elements taken from several expressions side by side."""
    most = max(len(part.at) for part in parts)
    at = np.concatenate([np.pad(part.at, ((0, most - len(part.at)), (0, 0))) for part in parts], axis=1)
    factor = np.concatenate([np.pad(part.factor, ((0, most - len(part.at)), (0, 0))) for part in parts], axis=1)
    return _Terms(at[:, order], factor[:, order])


def _pruned(terms: _Terms) -> _Terms | None:
    """Without rows of factors that are all 0; ``None`` for more terms than a turn has."""
    kept = (terms.factor != 0).any(axis=1)
    if kept.sum() > _MOST_TERMS:
        return None
    return terms if kept.all() or not kept.any() else _Terms(terms.at[kept], terms.factor[kept])
