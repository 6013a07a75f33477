"""Values of a graph as expressions, in which every movement of elements is an index array.

Exporters write the same model with many different operations that only move elements: reshapes, transposes, splits,
slices, gathers, concatenations. None of them is kept. A value is a :class:`View`: it says which elements of an
:class:`Expression` it has, and in which order. So it does not matter which operations an exporter chose, and a wrong
order cannot be mistaken for the right one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np

Kind = Literal[
    "image", "constant", "linear", "product", "elementwise", "reduce", "softmax", "norm", "select", "resize", "unknown"
]
"""``linear`` multiplies the last axis by a constant matrix, ``product`` the last axes of two values; ``select`` is
elements of several values, side by side; ``resize`` a constant resized as an image; ``unknown`` anything else."""


@dataclass(eq=False, repr=False)
class Expression:
    """A computation; its elements are numbered in row-major order.

    ``args`` are views, and arrays where an operation combines a value with constants.
    """

    kind: Kind
    shape: tuple[int, ...]
    args: tuple[View | np.ndarray, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    """What the kind needs: ``kernel``, ``function``, ``axes``, …"""
    place: str = ""
    """The node that computes it, in words."""
    number: int = field(default_factory=itertools.count().__next__)
    """Increases in the order of computation."""
    varies: bool = True
    """Whether it depends on the image."""
    value: str = ""
    """The graph's name for this value; empty where it has none."""

    def __repr__(self) -> str:
        """Without what it is computed from, which would be the whole graph, many times over."""
        return f"<{self.kind} {self.shape} {self.place or self.number}>"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def views(self) -> tuple[View, ...]:
        """The arguments that are views, not arrays."""
        return tuple(arg for arg in self.args if isinstance(arg, View))


@dataclass(frozen=True, eq=False)
class View:
    """Elements of an expression, in some order and shape."""

    expression: Expression
    shape: tuple[int, ...]
    order: np.ndarray | None = None
    """For each element of the view, its index in the expression; ``None`` means all of them, in order."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def whole(self) -> bool:
        """Whether it is the expression itself, in its own shape."""
        return self.order is None and self.shape == self.expression.shape

    def elements(self) -> np.ndarray:
        """The numbers of the elements, in the view's shape."""
        return numbers(self.shape) if self.order is None else self.order


def whole(expression: Expression) -> View:
    """All of an expression."""
    return View(expression, expression.shape)


def view_of(expression: Expression, order: np.ndarray) -> View:
    """The view of these elements; the identity is stored as ``None``."""
    return View(expression, order.shape, None if _in_order(order, expression.size) else order)


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    """0, 1, 2, … as an array of that shape."""
    size = math.prod(shape)
    return _counted(max(size - 1, 0).bit_length())[:size].reshape(shape)


@lru_cache(maxsize=2)
def _counted(bits: int) -> np.ndarray:
    """All numbers of that many bits, cached because many values have the same size."""
    found = np.arange(1 << bits, dtype=np.int32 if bits < 31 else np.int64)
    found.setflags(write=False)
    return found


def forget_numbers() -> None:
    """Release the memory that :func:`numbers` keeps."""
    _counted.cache_clear()


def rows_of(view: View, width: int) -> np.ndarray | None:
    """The row of the expression that each row of a view is, in the view's shape without its last axis.

    Args:
        view: its last axis is compared with the expression's.
        width: length of a row.

    Returns:
        ``None`` if the view does not consist of whole rows.
    """
    if not view.shape or view.shape[-1] != width or not view.expression.shape or view.expression.shape[-1] != width:
        return None
    if view.order is None:
        return numbers(view.shape[:-1])
    first = view.order[..., 0]
    if (first % width).any() or not np.array_equal(view.order, first[..., None] + np.arange(width)):
        return None
    return first // width


def starts(expressions: Sequence[Expression]) -> list[int]:
    """Of several expressions side by side, the index of each one's first element."""
    return [0, *itertools.accumulate(it.size for it in expressions[:-1])]


def is_permutation(order: np.ndarray, size: int) -> bool:
    """Whether each of ``size`` elements occurs exactly once."""
    if order.size != size:
        return False
    seen = np.zeros(size, bool)
    seen[order.reshape(-1)] = True
    return bool(seen.all())


def _in_order(order: np.ndarray, size: int) -> bool:
    if order.size != size:
        return False
    some = np.linspace(0, size - 1, min(size, 64)).astype(np.int64)  # a sample rules out most orders
    return bool((order.flat[some] == some).all()) and np.array_equal(order, numbers(order.shape))
