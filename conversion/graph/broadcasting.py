"""Operations that combine rows with one number for each of them, such as their mean or their length.

Rows lie along the last axis, and the numbers in the order of the rows. Optimisers, who move transposes past operations,
leave both otherwise; here the operation is made on the rows as they were reduced, and its result is moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.graph.expression import View, is_permutation, view_of

if TYPE_CHECKING:
    from conversion.graph.builder import Builder, Value


def unspread(view: View) -> View:
    """One number for each row where a view only repeats it along the row: operations repeat it by themselves.

    Rows of what is computed from the image may lie along any axis.
    """
    if view.order is None or view.size == 0:
        return view
    axes = reversed(range(len(view.shape))) if view.expression.varies else [len(view.shape) - 1]
    for axis in axes:
        if view.shape and view.shape[axis] > 1 and not view.order.strides[axis]:
            return view_of(view.expression, view.order.take([0], axis))
    return view


def by_rows(
    b: Builder, op: str, args: Sequence[Value], shape: tuple[int, ...], attributes: Mapping[str, Any]
) -> Value | None:
    """An elementwise operation of rows and of one number for each; ``None`` where these lie as they should.

    Args:
        b: makes the expressions.
        op: the operation.
        args: what it combines.
        shape: of its result.
        attributes: of the operation.
    """
    for view in args:
        if not isinstance(view, View) or not view.expression.varies or len(view.shape) != len(shape):
            continue
        axes = [axis for axis, side in enumerate(shape) if view.shape[axis] == 1 < side]
        if len(axes) != 1:
            continue
        if axes[0] < len(shape) - 1:
            turned = [axis_last(b, arg, axes[0], len(shape)) for arg in args]
            return axis_back(b, b.elementwise(op, turned, **attributes), axes[0])
        order = view.order
        if order is not None and view.expression.shape[-1:] == (1,) and is_permutation(order, view.expression.size):
            return _in_order_of(b, op, args, shape, attributes, view.expression.shape[:-1], order.reshape(-1))
    return None


def _in_order_of(
    b: Builder, op: str, args: Sequence[Value], shape: tuple[int, ...], attributes: Mapping[str, Any],
    rows: tuple[int, ...], order: np.ndarray,
) -> Value | None:  # fmt: skip
    """The operation on rows of shape ``rows``, of which ``order`` makes those that it reads here."""
    moved = [_rows(b, arg, np.argsort(order), shape, rows) for arg in args]
    given = [arg for arg in moved if arg is not None]
    if len(given) < len(moved):
        return None
    made = b.elementwise(op, given, **attributes)
    return b.moved(made, "", lambda x: (x.reshape(order.size, -1)[order].reshape(shape),))[0]


def axis_last(b: Builder, value: Value, axis: int, ndim: int) -> Value:
    """A value with an axis of ``ndim`` as its last."""
    if len(value.shape) < ndim - axis:
        return value if value.shape in ((), (1,)) else b.reshaped(value, (*value.shape, 1))
    return b.moved(value, "", lambda x: (np.moveaxis(x, axis - ndim, -1),))[0]


def axis_back(b: Builder, value: Value, axis: int) -> Value:
    """The inverse of :func:`axis_last`, of a value that has all axes."""
    return b.moved(value, "", lambda x: (np.moveaxis(x, -1, axis),))[0]


def _rows(b: Builder, value: Value, order: np.ndarray, shape: tuple[int, ...], rows: tuple[int, ...]) -> Value | None:
    """A value with its rows in another order; ``None`` if it has not one row, or number, for each."""
    if value.shape[:-1] == shape[:-1]:
        return b.moved(value, "", lambda x: (x.reshape(order.size, -1)[order].reshape(*rows, -1),))[0]
    is_row = isinstance(value, np.ndarray) and value.size == math.prod(value.shape[-1:])
    return value if is_row else None


def compressed(array: np.ndarray) -> np.ndarray:
    """The array with length 1 along axes where it does not change."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    return array
