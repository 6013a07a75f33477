"""The rows of an expression that a view consists of, however often they were moved, padded or cropped."""

from __future__ import annotations

import numpy as np

from conversion.graph.expression import Expression, View

NONE = -1
"""Stands for a zero that padding put in."""


def elements(view: View) -> tuple[Expression, np.ndarray] | None:
    """The one expression from which a view takes its elements, and the index of each, or :data:`NONE`.

    ``None`` if elements of several expressions were put together, or constants other than zeros.
    """
    at, order = view.expression, view.elements().astype(np.int64)
    while at.kind == "select":
        bases = at.facts["bases"]
        order = np.where(order < 0, NONE, at.facts["order"].reshape(-1)[np.maximum(order, 0)])
        start = 0
        found: tuple[Expression, int] | None = None
        for base in bases:
            inside = (order >= start) & (order < start + base.size)
            if base.kind == "constant":
                used = base.facts["array"].reshape(-1)[order[inside] - start]
                if used.any():
                    return None
                order = np.where(inside, NONE, order)
            elif inside.any() and found is not None:
                return None
            elif inside.any():
                found = base, start
            start += base.size
        if found is None:
            return None
        at, first = found
        order = np.where(order < 0, NONE, order - first)
    return at, order


def rows(view: View) -> tuple[Expression, np.ndarray] | None:
    """The same for a view that consists of whole rows of one expression: the number of each row."""
    found = elements(view)
    if found is None or not view.shape:
        return None
    at, order = found
    width = view.shape[-1]
    if not at.shape or at.shape[-1] != width:
        return None
    order = order.reshape(-1, width)
    first = order[:, 0]
    expected = np.where(first[:, None] < 0, NONE, first[:, None] + np.arange(width))
    if not np.array_equal(order, expected) or (first[first >= 0] % width).any():
        return None
    return at, np.where(first < 0, NONE, first // width)


def through(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Rows of rows: ``inner[outer]``, where :data:`NONE` stays."""
    return np.where(outer < 0, NONE, inner[np.maximum(outer, 0)])
