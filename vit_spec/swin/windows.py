"""How each stage's map is cut into windows, and what attention within a window knows of positions.

All of it follows from the config alone, so that both frameworks, and whatever else computes the model, share it. Tokens
of a window, and windows of a map, are in row-major order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from vit_spec.swin.config import SwinConfig

MASKED = -100.0
"""Added to the logit of a query and a key from different regions, as in Microsoft's code; it is not minus infinity."""
MAX_LOGIT_SCALE = math.log(100.0)
"""Upper bound of version 2's ``logit_scale`` (Liu et al. 2022, section 3.2: a temperature of at least 0.01)."""
BIAS_RANGE = 16.0
"""Version 2's bias is this times a sigmoid."""
BIAS_HIDDEN = 512
"""Hidden width of the network that computes version 2's bias."""


@dataclass(frozen=True)
class Windowing:
    """The windows of one stage: what :data:`vit_spec.swin.config.WindowRule` comes to. All sizes are in tokens."""

    map_size: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    """Cyclic shift of the blocks at odd positions; (0, 0) if all blocks of the stage are alike."""

    @property
    def padded(self) -> tuple[int, int]:
        """Size of the map once it is padded, below and on the right, to a multiple of the window."""
        rows, columns = (-(-side // window) * window for side, window in zip(self.map_size, self.window, strict=True))
        return rows, columns

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        return self.padded[0] // self.window[0], self.padded[1] // self.window[1]

    @property
    def tokens(self) -> int:
        """Tokens of one window."""
        return self.window[0] * self.window[1]

    @property
    def offsets(self) -> int:
        """Number of different offsets between two tokens of a window: rows of version 1's table."""
        return (2 * self.window[0] - 1) * (2 * self.window[1] - 1)


@lru_cache(maxsize=256)
def windowings(config: SwinConfig) -> tuple[Windowing, ...]:
    """The windows of each stage."""
    return tuple(
        _windowing(size, window, config) for size, window in zip(config.map_sizes, config.window_sizes, strict=True)
    )


def _windowing(size: tuple[int, int], window: tuple[int, int], config: SwinConfig) -> Windowing:
    rule = config.window_rule
    half = (window[0] // 2, window[1] // 2)
    if rule == "never":
        return Windowing(size, window, half)
    if rule == "min":
        if min(size) <= window[0]:
            return Windowing(size, (min(size), min(size)), (0, 0))
        return Windowing(size, window, half)
    one = (size[0] <= window[0], size[1] <= window[1])  # axes with one window
    shift = (0 if one[0] else half[0], 0 if one[1] else half[1])
    if rule == "pad":
        return Windowing(size, window, shift)
    own = (min(size[0], window[0]), min(size[1], window[1]))
    return Windowing(size, own, shift)


def offset_shares(window: tuple[int, int]) -> tuple[int, ...]:
    """For each token of a window, its share in the rows of the table of offsets.

    The row of the offset (dy, dx), query minus key, is ``(dy + height - 1) * (2 width - 1) + dx + width - 1``. That is
    the query's share minus the key's, plus the last token's.
    """
    height, width = window
    return tuple(row * (2 * width - 1) + column for row in range(height) for column in range(width))


@lru_cache(maxsize=64)
def offset_indices(window: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """For each query and key of a window, the row of the table of offsets: (tokens, tokens)."""
    shares = offset_shares(window)
    return tuple(tuple(query - key + shares[-1] for key in shares) for query in shares)


@lru_cache(maxsize=64)
def offset_coordinates(window: tuple[int, int], pretrained: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Version 2's log-spaced coordinates of each offset, in the order of the table: (offsets, 2), rows first.

    Liu et al. 2022, section 3.3: with u the offset over the largest one of the pretraining window, times 8, it is
    ``sign(u) log2(1 + |u|) / 3``. A window of one token, which has no offset but 0, gives 0.

    Args:
        window: height and width.
        pretrained: those by which offsets are normalised; 0 means the window's own.
    """

    def coordinates(side: int, reference: int) -> list[float]:
        largest = max((reference or side) - 1, 1)
        scaled = [8 * offset / largest for offset in range(1 - side, side)]
        return [math.copysign(math.log2(1 + abs(u)) / 3, u) for u in scaled]

    rows, columns = (coordinates(side, reference) for side, reference in zip(window, pretrained, strict=True))
    return tuple((row, column) for row in rows for column in columns)


@lru_cache(maxsize=64)
def shift_regions(windowing: Windowing) -> tuple[tuple[int, ...], ...]:
    """The region of each token of each window once the padded map is shifted: (windows, tokens).

    Tokens of different regions are not neighbours on the map, so they do not see each other (Liu et al. 2021, section
    3.2). Padding is not masked.
    """

    def regions(side: int, window: int, shift: int) -> list[int]:
        return [(at >= side - window) + (at >= side - shift) if shift else 0 for at in range(side)]

    (height, width), (rows, columns) = windowing.window, windowing.grid
    down, across = map(regions, windowing.padded, windowing.window, windowing.shift)
    return tuple(
        tuple(3 * down[row * height + y] + across[column * width + x] for y in range(height) for x in range(width))
        for row in range(rows)
        for column in range(columns)
    )
