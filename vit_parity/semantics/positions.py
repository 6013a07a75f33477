"""Positions that no array of tokens holds, in numpy and float64, written from the papers.

Rotary positions turn pairs of channels, as complex numbers; biases by relative position; fixed sines and cosines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vit_parity.semantics.layers import Linear
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary, Rotary


@dataclass(frozen=True)
class Turns:
    """What turns queries and keys of one attention, (B, h, N, d) -> (B, h, N, d)."""

    rotary: Rotary
    grid: tuple[int, int]
    """Rows and columns of patches."""
    prefix: int
    """Tokens before the patches."""
    frequencies: np.ndarray | None = None
    """Learned ones by column and by row, (2, h, d / 2)."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        width = x.shape[-1] // 2
        turning = np.exp(1j * self._angles(width))  # (patches, d / 2) or (h, patches, d / 2)
        halves = self.rotary.pairs == "halves"
        real, imaginary = (x[..., :width], x[..., width:]) if halves else (x[..., ::2], x[..., 1::2])
        patches = (real[..., self.prefix :, :] + 1j * imaginary[..., self.prefix :, :]) * turning
        y = x.copy()
        first, second = (slice(width), slice(width, None)) if halves else (slice(0, None, 2), slice(1, None, 2))
        y[..., self.prefix :, first], y[..., self.prefix :, second] = patches.real, patches.imag
        return y

    def _angles(self, width: int) -> np.ndarray:
        rows, columns = self.grid
        y, x = (axis.reshape(-1, 1) for axis in np.mgrid[:rows, :columns].astype(float))
        if isinstance(self.rotary, MixedRotary):
            assert self.frequencies is not None
            return np.einsum("an,ahj->hnj", np.stack([x[:, 0], y[:, 0]]), self.frequencies)
        exponents = np.linspace(0.0, 1.0, width // 2, endpoint=False)
        if isinstance(self.rotary, DinoV3Rotary):
            told = self.rotary.periods
            periods = self.rotary.theta**exponents if told is None else np.asarray(told)
            down, across = ((2.0 * at + 1.0) / n - 1.0 for at, n in ((y, rows), (x, columns)))
            return 2.0 * np.pi * np.hstack([down / periods, across / periods])
        return self._counted(y, x, self.rotary, exponents)

    def _counted(self, y: np.ndarray, x: np.ndarray, rotary: AxialRotary, exponents: np.ndarray) -> np.ndarray:
        y, x = y + rotary.offset, x + rotary.offset
        if rotary.reference_grid is not None:
            y, x = (at / n * wanted for at, n, wanted in zip((y, x), self.grid, rotary.reference_grid, strict=True))
        frequencies = 1.0 / rotary.theta**exponents
        return np.hstack([at * frequencies for at in ((x, y) if rotary.order == "wh" else (y, x))])


def with_periods(rotary: Rotary | None, periods: np.ndarray) -> Rotary | None:
    """The periods that a file holds, unless they are those of theta as float32 rounds them."""
    assert isinstance(rotary, DinoV3Rotary)
    told = periods.astype(np.float64).reshape(-1)
    own = rotary.theta ** np.linspace(0.0, 1.0, len(told), endpoint=False)
    near = np.all(np.abs(told / own - 1.0) < 2.0**-21)
    return rotary if near else replace(rotary, periods=tuple(told))


def relative_bias(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Bao et al. 2022: (h, N, N), the rows of the table by the way from key to query; three more, where a table has
    them, for the class token: as query, as key, as both."""
    rows, columns = grid
    count = (2 * rows - 1) * (2 * columns - 1)
    offsets, others = table[:count].reshape(2 * rows - 1, 2 * columns - 1, -1), table[count:]
    first = 1 if len(others) else 0
    N = first + rows * columns
    found = np.empty((N, N, table.shape[1]))
    if first:
        found[0, 1:], found[1:, 0], found[0, 0] = others
    for a in range(N - first):
        y, x = divmod(a, columns)  # the query; keys run over the whole grid, so offsets fall
        found[first + a, first:] = offsets[y : y + rows, x : x + columns][::-1, ::-1].reshape(N - first, -1)
    return found.transpose(2, 0, 1)


def network_bias(first: Linear, second: Linear, grid: tuple[int, int], prefix: int) -> np.ndarray:
    """(h, N, N): two layers with a ReLU between them read how many rows and columns the query is behind the key, each
    as its sign times ln(1 + its size). The tokens before the patches get 0."""
    sizes = [np.log1p(np.arange(side)) for side in grid]
    rows, columns = (np.concatenate([-size[:0:-1], size]) for size in sizes)
    offsets = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    patches = relative_bias(second(np.maximum(first(offsets), 0.0)), grid)
    whole = np.zeros((len(patches), prefix + patches.shape[1], prefix + patches.shape[2]))
    whole[:, prefix:, prefix:] = patches
    return whole


def sincos(kind: str, rows: int, columns: int, width: int) -> np.ndarray:
    """(patches, D). ``to the last``: Beyer et al. 2022, in float32 as their code computes it. ``before the last``:
    El-Nouby et al. 2024 (AIM), after Chen et al. 2021 (MoCo v3)."""
    number = np.float32 if kind == "to the last" else np.float64
    steps = width // 4 - (kind == "to the last")
    omega = number(1) / number(10000) ** (np.arange(width // 4, dtype=number) / number(steps))
    angles = [np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)]
    y, x = (np.outer(places.astype(number), omega) for places in angles)
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float64)
