"""The patch projection: a linear layer over windows of the image, however the graph extracts them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from conversion.graph.expression import Expression
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.layers import Layers, Norm, unselected


@dataclass(frozen=True, eq=False)
class Patches:
    """A projection of patches in row-major order."""

    kernel: np.ndarray  # (O, C, P, P)
    bias: np.ndarray | None
    image_size: tuple[int, int]
    grid: tuple[int, int]
    channels_last: bool
    """Whether the graph takes (B, H, W, C)."""
    folded: bool
    """Whether arithmetic on the pixels was folded into it."""
    norm: Norm | None = None
    """Of the pixels of each patch, before the projection; its factors are ordered by row, column and channel."""


def patches_of(at: Expression, layers: Layers, *, normed: bool = False) -> Patches | None:
    """The patch projection whose output is ``at``; ``None`` if that is not a linear layer on the image.

    Args:
        normed: whether the pixels of each patch may be normalised before the projection.

    Raises:
        NotUnderstoodError: if it is one, but its windows are not patches.
    """
    layer = layers.linear(at)
    if layer is None:
        return None
    source, order = unselected(layer.x)
    if source is None or order is None:
        return None
    norm, within = layers.norm(source), None
    if norm is not None:
        source, inner = unselected(norm.x)
        if not normed or source is None or inner is None or _pixels(source, layers)[0].kind != "image":
            return None
        order, within = _through(norm, order.reshape(-1, layer.kernel.shape[0]), layer.place)
        order = inner.reshape(-1)[order]
    image, scale, shift = _pixels(source, layers)
    if image.kind != "image":
        return None
    B = image.shape[0]
    order = order.reshape(B, -1, layer.kernel.shape[0])
    one = order[0]  # (N, C P P)
    if len(image.shape) != 4 or not np.array_equal(order, one + np.arange(B)[:, None, None] * (image.size // B)):
        raise NotUnderstoodError(f"The graph's {layer.place} mixes images of a batch.")
    for channels_last in (False, True):
        found = _placed(one, image.shape, channels_last)
        if found is not None:
            break
    else:
        raise NotUnderstoodError(
            f"The graph's {layer.place} is a linear layer on the image, but not on adjacent square patches."
        )
    places, patch, grid = found
    kernel, bias = layer.kernel, layer.bias
    if norm is not None and (scale is not None or shift is not None):
        raise NotUnderstoodError(f"The graph scales pixels before {norm.place} normalises those of each patch.")
    if scale is not None or shift is not None:
        kernel, bias = _folded(kernel, bias, one, scale, shift, layer.place)
    height, width = image.shape[1:3] if channels_last else image.shape[2:4]
    C = image.shape[3] if channels_last else image.shape[1]
    own = np.empty_like(places)
    own[places] = np.arange(len(places))
    weight = kernel.T[:, own] if not np.array_equal(own, np.arange(len(own))) else kernel.T
    return Patches(
        weight.reshape(-1, C, patch, patch), bias, (height, width), grid, channels_last,
        scale is not None or shift is not None,
        None if norm is None or within is None else _by_row(norm, within[own].reshape(C, patch, patch)),
    )  # fmt: skip


def _through(norm: Norm, order: np.ndarray, place: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the elements that a norm reads, (rows, width), and which of its channels each column is."""
    width = norm.x.shape[-1]
    if order.shape[1] != width or not np.array_equal(np.sort(order[0] % width), np.arange(width)):
        raise NotUnderstoodError(f"The graph's {place} does not read all that {norm.place} normalises together.")
    within = order[0] % width
    if not np.array_equal(order, order[:, :1] // width * width + within):
        raise NotUnderstoodError(f"The graph's {place} reads several patches, which {norm.place} normalises apart.")
    return order, within


def _by_row(norm: Norm, channels: np.ndarray) -> Norm:
    """A norm with its factors by row, column and channel, from the number of its channel for each (C, P, P)."""
    to = channels.transpose(1, 2, 0).reshape(-1)
    weight, bias = (
        None if part is None or part.size == 1 else part.reshape(-1)[to] for part in (norm.weight, norm.bias)
    )
    return replace(norm, weight=weight, bias=bias)


def _pixels(at: Expression, layers: Layers) -> tuple[Expression, np.ndarray | None, np.ndarray | None]:
    """The image, and the scale and shift that are applied to its pixels: ``image * scale + shift``."""
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    steps = []
    while (step := layers.step(at)).kind in ("scale", "shift") and step.x is not None and step.by is not None:
        steps.append((step.kind, np.broadcast_to(step.by.astype(np.float64), at.shape).reshape(-1)))
        at = step.x
    for kind, by in reversed(steps):
        if kind == "scale":
            scale = by if scale is None else scale * by
            shift = None if shift is None else shift * by
        else:
            shift = by if shift is None else shift + by
    return at, scale, shift


def _placed(
    order: np.ndarray, shape: tuple[int, ...], channels_last: bool
) -> tuple[np.ndarray, int, tuple[int, int]] | None:
    """The index of each input in (C, P, P), the patch's side, and the grid; ``None`` if these are not patches."""
    C, H, W = (shape[3], *shape[1:3]) if channels_last else shape[1:4]
    first = order[0] if len(order) else np.zeros(0, np.int64)
    if channels_last:
        y, x, c = first // (W * C), first // C % W, first % C
    else:
        c, y, x = first // (H * W), first // W % H, first % W
    patch = int(y.max(initial=-1)) + 1
    if len(first) != C * patch * patch or int(x.max(initial=-1)) + 1 != patch or c.max(initial=0) >= C:
        return None
    places = (c * patch + y) * patch + x
    if not np.array_equal(np.sort(places), np.arange(len(places))):
        return None
    h, w = H // patch, W // patch
    n = np.arange(h * w)[:, None]
    rows, columns = n // w * patch + y, n % w * patch + x
    expected = (rows * W + columns) * C + c if channels_last else (c * H + rows) * W + columns
    return (places, patch, (h, w)) if np.array_equal(order, expected) else None


def _folded(
    kernel: np.ndarray, bias: np.ndarray | None, order: np.ndarray, scale: np.ndarray | None, shift: np.ndarray | None,
    place: str,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Kernel and bias with the scale and shift of the pixels folded in."""
    result, offset = kernel.astype(np.float64), np.zeros(kernel.shape[1]) if bias is None else bias.astype(np.float64)
    for by in (scale, shift):
        if by is not None and not np.array_equal(by[order], np.broadcast_to(by[order[0]], order.shape)):
            raise NotUnderstoodError(f"The graph scales pixels before its {place} differently from patch to patch.")
    if shift is not None:
        offset = offset + shift[order[0]] @ result
    if scale is not None:
        result = result * scale[order[0]][:, None]
    return result.astype(kernel.dtype), offset.astype(kernel.dtype)
