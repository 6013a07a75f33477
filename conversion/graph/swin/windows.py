"""How the windows of a graph cut maps: which window, shift and order of padding give the tokens that each holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from conversion.graph.graph import NotUnderstoodError
from conversion.graph.swin.rows import NONE
from vit_spec import SwinConfig, VitportError
from vit_spec.swin.config import PadOrder, WindowRule
from vit_spec.swin.windows import Windowing, windowings

ORDERS: tuple[PadOrder, ...] = ("pad_roll", "roll_pad")
_CONVENTIONS: tuple[tuple[WindowRule, PadOrder], ...] = tuple(product(("axis", "min", "pad", "never"), ORDERS))


def windowing_of(tokens: np.ndarray, map_size: tuple[int, int], place: str) -> tuple[Windowing, tuple[PadOrder, ...]]:
    """The windows of one block, and the orders of padding and shifting that give them.

    Args:
        tokens: of each window of one image, (windows, n); -1 for padding.
        map_size: rows and columns of the map.
        place: the node, for messages.

    Raises:
        NotUnderstoodError: if no windows of equal size, shifted by half or by nothing, are cut so.
    """
    for found in _candidates(map_size, *tokens.shape):
        orders: tuple[PadOrder, ...] = tuple(order for order in ORDERS if np.array_equal(tokens, _cut(found, order)))
        if orders:
            return found, orders
    raise NotUnderstoodError(
        f"The graph's {place} attends within groups of {tokens.shape[1]} of {map_size[0]} x {map_size[1]} tokens that "
        "are not windows of a Swin Transformer, shifted by half their size or not at all."
    )


def _candidates(map_size: tuple[int, int], count: int, n: int) -> Iterator[Windowing]:
    windows = [(side, n // side) for side in range(1, n + 1) if n % side == 0]
    for window in sorted(windows, key=lambda it: abs(it[0] - it[1])):
        half = (window[0] // 2, window[1] // 2)
        for shift in dict.fromkeys(((0, 0), half, (half[0], 0), (0, half[1]))):
            found = Windowing(map_size, window, shift)
            if found.grid[0] * found.grid[1] == count:
                yield found


def _cut(w: Windowing, order: PadOrder) -> np.ndarray:
    """The tokens of each window, (windows, n)."""
    (rows, columns), (height, width), (down, across) = w.map_size, w.window, w.grid
    tokens = np.arange(rows * columns).reshape(rows, columns)
    border = ((0, w.padded[0] - rows), (0, w.padded[1] - columns))
    back = (-w.shift[0], -w.shift[1])
    if order == "pad_roll":
        tokens = np.roll(np.pad(tokens, border, constant_values=NONE), back, (0, 1))
    else:
        tokens = np.pad(np.roll(tokens, back, (0, 1)), border, constant_values=NONE)
    return tokens.reshape(down, height, across, width).swapaxes(1, 2).reshape(down * across, -1)


def rule_of(
    config: SwinConfig, observed: tuple[tuple[Windowing, Windowing | None], ...], orders: set[PadOrder]
) -> SwinConfig:
    """The config with the window of each stage, and a rule, that give what was observed.

    Args:
        config: everything else.
        observed: of each stage, the windows of its blocks at even and at odd positions; ``None`` if it has one block.
        orders: the orders of padding and shifting that fit.

    Raises:
        NotUnderstoodError: if none does.
    """
    own = tuple(even.window for even, _ in observed)
    largest = max(own, key=lambda window: window[0] * window[1])
    for windows in dict.fromkeys(((largest,) * len(own), own)):
        for rule, order in _CONVENTIONS:
            try:
                found = config.replace(window_sizes=windows, window_rule=rule, pad_order=order)
            except VitportError:  # a rule for square windows
                continue
            if order in orders and all(map(_gives, windowings(found), observed)):
                return found
    raise NotUnderstoodError(
        f"The graph's windows ({', '.join(f'{height}x{width}' for height, width in own)}) and shifts follow no rule "
        "that a SwinConfig states."
    )


def _gives(made: Windowing, observed: tuple[Windowing, Windowing | None]) -> bool:
    even, odd = observed
    return made.window == even.window and (odd is None or made == odd)
