"""Operations that only move elements, on numpy arrays: constants, or the indices of elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Attributes = Mapping[str, Any]
Moved = Sequence[np.ndarray]
Layout = Callable[[np.ndarray, Sequence[np.ndarray | None], Attributes, int, int], Moved]
"""``f(array, further inputs, attributes, opset, number of outputs)`` → outputs."""


def _same(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    return (x,)


def _reshape(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    target = ints(more[0]) if more else tuple(a["shape"])
    if not a.get("allowzero"):
        target = tuple(x.shape[at] if side == 0 else side for at, side in enumerate(target))
    return (x.reshape(target),)


def _transpose(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    return (x.transpose(a.get("perm")),)


def _axes(more: Sequence[np.ndarray | None], a: Attributes) -> tuple[int, ...] | None:
    given = a.get("axes") if not more or more[0] is None else ints(more[0])
    return None if given is None else tuple(given)


def _squeeze(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    return (x.squeeze(_axes(more, a)),)


def _unsqueeze(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    return (np.expand_dims(x, _axes(more, a) or ()),)


def _flatten(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    axis = a.get("axis", 1) if x.ndim else 0
    axis += x.ndim if axis < 0 else 0  # -1 is before the last axis; x.ndim, behind it, is allowed too
    return (x.reshape(math.prod(x.shape[:axis]), -1),)


def _slice(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    starts, ends = (ints(more[0]), ints(more[1])) if more else (tuple(a["starts"]), tuple(a["ends"]))
    axes = ints(more[2]) if len(more) > 2 and more[2] is not None else a.get("axes", tuple(range(len(starts))))
    steps = ints(more[3]) if len(more) > 3 and more[3] is not None else (1,) * len(starts)
    cuts = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:
            start = min(start, x.shape[axis] - 1)
            end = None if end < -x.shape[axis] else end
        cuts[axis] = slice(start, end, step)
    return (x[tuple(cuts)],)


def _split(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    axis = a.get("axis", 0)
    parts = ints(more[0]) if more and more[0] is not None else a.get("split")
    if parts is None:
        each = -(-x.shape[axis] // (a.get("num_outputs") or count))
        parts = [min(each, x.shape[axis] - at) for at in range(0, x.shape[axis], each)]
    if sum(parts) != x.shape[axis]:
        raise ValueError(f"parts of {tuple(parts)} do not make up a side of {x.shape[axis]}")
    return np.split(x, np.cumsum(parts)[:-1], axis)


def _gather(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    axis, at = a.get("axis", 0), np.asarray(more[0])
    ints(at)  # checks that they are integers
    if at.ndim == 0:  # a view
        return (x[(slice(None),) * (axis % x.ndim) + (int(at),)],)
    return (np.take(x, at, axis),)


def _gather_nd(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    if a.get("batch_dims", 0):
        raise ValueError("batch_dims is not read")
    return (x[tuple(np.moveaxis(np.asarray(more[0]), -1, 0))],)


def _expand(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    return (np.broadcast_to(x, np.broadcast_shapes(x.shape, ints(more[0]))),)


def _space_to_depth(x: np.ndarray, more: Sequence[np.ndarray | None], a: Attributes, opset: int, count: int) -> Moved:
    B, C, H, W = x.shape
    P = a["blocksize"]
    return (x.reshape(B, C, H // P, P, W // P, P).transpose(0, 3, 5, 1, 2, 4).reshape(B, -1, H // P, W // P),)


LAYOUTS: dict[str, Layout] = {
    "Identity": _same, "Dropout": _same, "Reshape": _reshape, "Transpose": _transpose, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Flatten": _flatten, "Slice": _slice, "Split": _split, "Gather": _gather,
    "GatherND": _gather_nd, "Expand": _expand, "SpaceToDepth": _space_to_depth,
}  # fmt: skip
"""ONNX's operation → the same on a numpy array; each returns views where numpy can."""


def ints(array: np.ndarray | None) -> tuple[int, ...]:
    """The integers in a constant."""
    if array is None or array.dtype.kind not in "iu":
        raise ValueError("expected constant integers")
    return tuple(int(value) for value in array.reshape(-1))
