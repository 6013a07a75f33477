"""What a Swin Transformer adds to its scores, taken apart: a bias by relative position, and the mask of shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conversion.graph.expression import Expression, View
from conversion.graph.fold import fold
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.layers import Layers
from conversion.graph.swin.attention import WindowAttention
from vit_spec.swin.windows import BIAS_RANGE, MASKED, Windowing, offset_coordinates, offset_indices, shift_regions

_LARGEST_WINDOW = 64
"""Largest side of a window of pretraining that is tried."""
_NEAR = 1e-6
"""How far a layer's results may be from the layer, of the largest: some roundings in float32."""
_ROUNDED = 2e-3
"""Four roundings of the largest coordinate, about 1.1, in float16."""
_TOLERANCE = {2: 2e-2}
"""How far numbers of so many bytes may be from what they should be, of the mask; 1e-6 for all wider ones."""


@dataclass(frozen=True, eq=False)
class Network:
    """The network that computes version 2's bias: a linear layer, ReLU, a linear layer."""

    coordinates: np.ndarray  # (offsets, 2)
    first: np.ndarray  # (2, hidden)
    bias: np.ndarray  # (hidden,)
    second: np.ndarray  # (hidden, h)
    pretrained: tuple[int, int]
    """The window by which offsets are normalised; 0 for the model's own."""
    solved: bool = False
    """Whether the graph holds what the first layer gives instead of its weights, which were found from that."""


def table_of(attention: WindowAttention, windowing: Windowing, itemsize: int) -> tuple[np.ndarray, bool]:
    """The bias of each offset, (offsets, h), and whether the mask was added twice.

    Args:
        attention: what was read.
        windowing: of this block, with its shift.
        itemsize: bytes of the model's numbers.

    Raises:
        NotUnderstoodError: if what is added is not such a bias, and the mask that the shift needs.
    """
    place, count = attention.place, windowing.grid[0] * windowing.grid[1]
    h, n = attention.heads, windowing.tokens
    whole = attention.bias
    if whole is None:
        raise NotUnderstoodError(f"The graph's {place} adds no bias by relative position.")
    bias = whole.reshape(-1, count, h, n, n).astype(np.float64)
    near = _TOLERANCE.get(itemsize, 1e-6)
    if not np.allclose(bias, bias[:1], rtol=0, atol=near):
        raise NotUnderstoodError(f"The graph's {place} adds other numbers to the scores of each image.")
    bias = bias[0]
    index = np.array(offset_indices(windowing.window))
    apart = np.zeros((count, n, n), bool)
    if any(windowing.shift):
        regions = np.array(shift_regions(windowing))
        apart = regions[:, :, None] != regions[:, None]
    for times in (1, 2):
        masked = bias - times * MASKED * apart[:, None]
        table = _by_offset(masked, apart, index, windowing.offsets)
        if np.abs(masked - table[index].transpose(2, 0, 1)).max() <= near * abs(MASKED) * times:
            return table, times == 2 and bool(apart.any())
    unmasked = bool(apart.any()) and np.allclose(bias, bias[:1], rtol=0, atol=near)
    what = "no mask to windows that are shifted" if unmasked else "other numbers than a bias by relative position"
    more = "" if unmasked else f" and {MASKED:g} between the regions of shifted maps"
    raise NotUnderstoodError(
        f"The graph's {place} adds {what}{more}, so it is not a Swin Transformer that vitport reads."
    )


def _by_offset(masked: np.ndarray, apart: np.ndarray, index: np.ndarray, offsets: int) -> np.ndarray:
    """For each offset the bias of one query and key, if there is one of a pair that is not masked."""
    found = np.zeros((offsets, masked.shape[1]))
    for pairs in (apart, ~apart):  # the latter win: a mask costs digits
        window, query, key = np.nonzero(pairs)
        found[index[query, key]] = masked[window, :, query, key]
    return found


def network_of(attention: WindowAttention, windowing: Windowing, table: np.ndarray, layers: Layers) -> Network:
    """The network of version 2 that computes a table.

    Raises:
        NotUnderstoodError: if the graph holds its results alone, or it is another one.
    """
    place = attention.place
    views = [it.view for it in attention.addends if it.view is not None]
    found = [network for it in views if (network := _network(it.expression, windowing, layers, place)) is not None]
    if len(found) != 1:
        raise NotUnderstoodError(
            f"The graph is a Swin Transformer of version 2 whose {place} adds biases that were computed in advance, so "
            "the weights of their network are gone: read the graph from before onnxruntime optimised it (or optimise "
            "it with disabled_optimizers=['ConstantFolding']), or export it without folding constants "
            "(do_constant_folding=False, or optimize=False)."
        )
    (network,) = found
    hidden = np.maximum(network.coordinates @ network.first.astype(np.float64) + network.bias, 0)
    with np.errstate(over="ignore"):
        expected = BIAS_RANGE / (1 + np.exp(-hidden @ network.second.astype(np.float64)))
    near = 2e-2 if network.second.dtype.itemsize == 2 else 1e-5
    if expected.shape != table.shape or np.abs(expected - table).max() > near * BIAS_RANGE:
        raise NotUnderstoodError(
            f"The graph's {place} adds a bias that is not 16 times the sigmoid of a network of its offsets."
        )
    return network


def _network(at: Expression, windowing: Windowing, layers: Layers, place: str) -> Network | None:
    """The last linear layer before ``at`` that reads a ReLU, and that ReLU's input."""
    waiting, seen = [at], set[int]()
    while waiting:
        now = waiting.pop()
        if now.number in seen:
            continue
        seen.add(now.number)
        if now.kind == "linear" and (act := layers.activation(now.views[0])) is not None and act[1] == "relu":
            second = now.facts["kernel"] * np.asarray(act[2], now.facts["kernel"].dtype)
            return _with_first(act[0], second, windowing, layers, place)
        waiting += [view.expression for view in now.views]
    return None


def _with_first(view: View, second: np.ndarray, windowing: Windowing, layers: Layers, place: str) -> Network | None:
    """The network whose first layer gives a view, as a layer or as its results."""
    layer = layers.linear(view.expression) if view.order is None else None
    if layer is not None and layer.kernel.shape[0] == 2:
        coordinates = fold(layer.x).reshape(-1, 2).astype(np.float64)
        bias = np.zeros(len(second), layer.kernel.dtype) if layer.bias is None else layer.bias
        pretrained = _pretrained(coordinates, windowing.window, place)
        return Network(coordinates, layer.kernel, bias, second, pretrained)
    given = fold(view)
    results = given.reshape(-1, len(second)).astype(np.float64)
    if len(results) != windowing.offsets:
        return None
    for side in (0, *range(2, _LARGEST_WINDOW + 1)):
        coordinates = np.array(offset_coordinates(windowing.window, (side, side)))
        columns = np.concatenate([coordinates, np.ones((len(coordinates), 1))], axis=1)
        solution = np.linalg.lstsq(columns, results, rcond=None)[0]
        if np.abs(columns @ solution - results).max() <= _NEAR * np.abs(results).max():
            first, bias = solution[:2].astype(given.dtype), solution[2].astype(given.dtype)
            return Network(coordinates, first, bias, second, (side, side), solved=True)
    return None


def _pretrained(coordinates: np.ndarray, window: tuple[int, int], place: str) -> tuple[int, int]:
    """The window by which offsets were normalised; 0 for the model's own."""
    sides: list[int] = []
    for axis, side in enumerate(window):
        top = float(coordinates[:, axis].max())
        told = round(1 + 8 * (side - 1) / (2 ** (3 * top) - 1)) if top > 0 else 0
        sides.append(0 if told == side else told)
    found = (sides[0], sides[1])
    expected = np.array(offset_coordinates(window, found))
    if expected.shape != coordinates.shape or np.abs(expected - coordinates).max() > _ROUNDED:
        raise NotUnderstoodError(
            f"The graph's {place} computes its bias from coordinates that are not logarithms of offsets, scaled as in "
            "version 2."
        )
    return found
