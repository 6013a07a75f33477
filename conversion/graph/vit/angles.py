"""The rotary positions that a graph's angles are: their kind and its fields, from the angles alone.

A guess follows from how fast the angles of the slowest pairs grow, and counts if it gives all angles of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from conversion.graph.graph import NotUnderstoodError
from conversion.graph.vit.turned import Turn
from vit_spec.vit.rotary import AxialRotary, AxisOrder, DinoV3Rotary, Grid, MixedRotary, Rotary, turns

_PUBLISHED = 10000.0, 100.0
"""Bases of axial positions. A step of the second slowest pair may be more than half a turn, and then shows none."""
_ROUNDED = 1e-4
"""How near a period is to a number of bfloat16 that it is."""


@dataclass(frozen=True)
class Placed:
    """Where turned tokens are."""

    grid: Grid
    prefix: int
    place: str
    """In words."""


def rotary_of(found: list[Turn], where: Placed) -> Rotary:
    """The rotary positions of a model.

    Args:
        found: the turns of queries and keys of all blocks.

    Raises:
        NotUnderstoodError: if no kind that is known gives these angles.
    """
    first = found[0]
    if any(it.pairs != first.pairs for it in found):
        raise _unknown(where, "turns other pairs of channels in other places")
    alike = all(np.abs(_points(it) - _points(first)[:1]).max() <= 4 * it.near for it in found)
    if not alike:
        for it in found:
            frequencies_of(it, where)
        return MixedRotary()
    z = _points(first)[0]
    if (np.abs(z[: where.prefix] - 1) > first.near).any():
        raise _unknown(where, "turns tokens before the patches")
    patches = z[where.prefix :].reshape(*where.grid, -1)
    d = 2 * z.shape[1]
    for guess in _guesses(patches, first) if d % 4 == 0 else ():
        cos, sin = turns(guess, where.grid, d, where.prefix)
        exact = np.array(cos) + 1j * np.array(sin)
        if np.abs(exact - z).max() <= 8 * first.near:
            return guess
    raise _unknown(where, "turns queries and keys by angles that are none of DINOv3's, EVA-02's, PE's or RoPE-ViT's")


def frequencies_of(turn: Turn, where: Placed) -> np.ndarray:
    """The frequencies of each head for columns and rows, (2, h, d / 2).

    Raises:
        NotUnderstoodError: if the angles are not their multiples.
    """
    z = _points(turn)
    if turn.pairs != "neighbours" or (np.abs(z[:, : where.prefix] - 1) > turn.near).any():
        raise _unknown(where, "turns tokens before the patches, or other pairs than learned frequencies turn")
    rows, columns = where.grid
    patches = z[:, where.prefix :].reshape(len(z), rows, columns, -1)
    frequencies = np.stack([_frequency(patches[:, 0]), _frequency(patches[:, :, 0])])
    row, column = np.indices(where.grid)[..., None]
    expected = np.exp(1j * (column * frequencies[0][:, None, None] + row * frequencies[1][:, None, None]))
    if np.abs(expected - patches).max() > 8 * turn.near * max(where.grid):
        raise _unknown(where, "turns heads by angles that are no multiples of a frequency for rows and one for columns")
    return frequencies


def _unknown(where: Placed, what: str) -> NotUnderstoodError:
    return NotUnderstoodError(f"The graph's {where.place} {what}: other rotary positions are not read.")


def _points(turn: Turn) -> np.ndarray:
    """cos + i sin, (h, N, d / 2)."""
    return turn.cos + 1j * turn.sin


def _frequency(z: np.ndarray) -> np.ndarray:
    """The angle of a step along axis 1 of (h, steps, d / 2), by the longest way: the error is divided by its length."""
    steps = z.shape[1] - 1
    if steps < 1:
        return np.zeros((z.shape[0], z.shape[2]))
    step = np.angle(z[:, 1] / z[:, 0])
    for count in range(2, steps + 1):
        there = np.angle(z[:, count] / z[:, 0])
        step = step + ((there - count * step + math.pi) % (2 * math.pi) - math.pi) / count
    return step


def _guesses(z: np.ndarray, turn: Turn) -> Iterator[DinoV3Rotary | AxialRotary]:
    """Rotary positions that may give the angles of patches, (rows, columns, d / 2)."""
    quarter = z.shape[-1] // 2
    moving = [np.abs(np.diff(z[..., :quarter], axis=axis)).max(initial=0) for axis in (0, 1)]
    order: AxisOrder = "hw" if moving[0] >= moving[1] else "wh"
    halves = (z[..., :quarter], z[..., quarter:])
    by_row, by_column = halves if order == "hw" else halves[::-1]
    axes = by_row[:, 0], by_column[0]  # (rows, d / 4), (columns, d / 4)
    steps = [_frequency(axis[None])[0] for axis in axes]
    if order == "hw" and turn.pairs == "halves":
        yield from _dinov3(axes, steps, turn.near)
    yield from _axial(axes, steps, order, turn)


def _dinov3(axes: tuple[np.ndarray, np.ndarray], steps: list[np.ndarray], near: float) -> Iterator[DinoV3Rotary]:
    longest = max((0, 1), key=lambda at: len(axes[at]))
    length, step = len(axes[longest]), steps[longest]
    yield DinoV3Rotary()
    if length < 2 or not (step > 0).all():
        return
    periods = 4 * math.pi / (length * step)
    quarter = len(periods)
    if quarter > 1:
        for theta in _written(float(periods[-1] ** (quarter / (quarter - 1))), near):
            yield DinoV3Rotary(theta=theta)
    rounded = periods.astype(ml_dtypes.bfloat16).astype(np.float64)
    own = np.where(np.abs(rounded / periods - 1) < _ROUNDED, rounded, periods.astype(np.float32).astype(np.float64))
    yield DinoV3Rotary(periods=tuple(map(float, own)))


def _axial(
    axes: tuple[np.ndarray, np.ndarray], steps: list[np.ndarray], order: AxisOrder, turn: Turn
) -> Iterator[AxialRotary]:
    longest = max((0, 1), key=lambda at: len(axes[at]))
    quarter, step = len(steps[longest]), steps[longest]
    if len(axes[longest]) < 2 or not step[-1] > 0:
        return
    fitted = _written(float((step[-2] / step[-1]) ** quarter), turn.near) if quarter > 1 and step[-2] > 0 else ()
    for theta in (*_PUBLISHED, *fitted):
        slowest = theta ** (-(quarter - 1) / quarter)
        scales = [float(own[-1]) / slowest if len(axis) > 1 else 1.0 for axis, own in zip(axes, steps, strict=True)]
        offset = round(float(np.angle(axes[longest][0, -1])) / (slowest * scales[longest]), 2) + 0.0
        wanted = [round(scale * len(axis)) for scale, axis in zip(scales, axes, strict=True)]
        grid = None if wanted == [len(axis) for axis in axes] else (wanted[0], wanted[1])
        if min(wanted) > 0:
            yield AxialRotary(theta=theta, order=order, offset=offset, reference_grid=grid, pairs=turn.pairs)


def _written(value: float, near: float) -> Iterator[float]:
    """Numbers of few digits near a measured one, as an author would write it, the shortest first."""
    if not math.isfinite(value) or not value > 0:
        return
    known: set[float] = set()
    for digits in range(1, 8):
        number = float(f"{value:.{digits}g}")
        if abs(number / value - 1) < 1e3 * near and number not in known:
            known.add(number)
            yield number
