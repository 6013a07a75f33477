"""Two runs, activation by activation: how far apart they are, and which is further from float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vit_parity.bound import bounds, bounds_without_weights
from vit_parity.capture import Capture
from vit_parity.measure import Difference, PairSums, difference_of, dot, joined_sums, pair_sums, ratio, relative
from vit_parity.pieces import over
from vit_parity.points import is_tokens, path_in_block
from vit_parity.replay import ReplayedModel
from vit_parity.ulp import UlpCounts, Ulps, count_ulps, joined, roundoff, ulp_distance, ulps_of
from vit_spec import VitportError

Verdict = Literal["rounding", "a", "b", "both", "apart"]
"""Which run is wrong: none, one of the two, both; without a reference, only that they are apart."""


_IN_WORDS: dict[Verdict, str] = {
    "rounding": "rounding",
    "a": "A is off",
    "b": "B is off",
    "both": "both are off",
    "apart": "apart",
}


@dataclass(frozen=True)
class Row:
    """One activation of two runs, B measured against A."""

    name: str
    shape: tuple[int, ...]
    difference: Difference
    ulps: Ulps
    beyond: float
    """Share of elements that differ by more than ``tolerance`` times A's root mean square."""
    tolerance: float
    """The largest relative L2 distance that rounding in A and in B explains."""
    error_a: float | None
    """Relative L2 distance of A from the float64 reference; ``None`` without one."""
    error_b: float | None
    verdict: Verdict
    bound_a: float = field(default=math.nan, compare=False)
    """The largest relative L2 distance from the exact result that rounding in A explains."""
    bound_b: float = field(default=math.nan, compare=False)
    histogram: tuple[int, ...] = field(default=(), compare=False, repr=False)
    """How many elements are 0 ulps apart, and how many from each power of two to the next."""
    by_token: np.ndarray | None = field(default=None, compare=False, repr=False)
    """(N,): relative L2 distance of each token of the first image, where the activation is tokens (B, N, D)."""

    @property
    def verdict_in_words(self) -> str:
        """As tables and reports show it."""
        return _IN_WORDS[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; docs/comparing.md describes them."""
        told = dataclasses.asdict(self) | {"shape": list(self.shape)}
        return {name: value for name, value in told.items() if name not in _OF_REPORTS}


_OF_REPORTS = ("bound_a", "bound_b", "histogram", "by_token")
"""Fields of a row that the report and the figure show."""


@dataclass(frozen=True)
class Comparison:
    """Two runs compared. The captures may hold the models' outputs alone: what is shown of the rest is in the rows."""

    a: Capture
    b: Capture
    rows: tuple[Row, ...]
    only_a: tuple[str, ...]
    """Activations that B does not have."""
    only_b: tuple[str, ...]
    truth: Capture | None = None

    @property
    def first_divergence(self) -> Row | None:
        """The first activation that rounding does not explain."""
        return next((row for row in self.rows if row.verdict != "rounding"), None)

    def is_stage(self, row: Row) -> bool:
        """Whether the row is of the tokens between blocks or of the model's output."""
        return is_tokens(row.name) or row.name == self.rows[-1].name

    def first_above(self, limit: float) -> Row | None:
        """The first activation whose relative difference is above ``limit``, or NaN."""
        return next((row for row in self.rows if not row.difference.relative <= limit), None)


@dataclass(frozen=True)
class Depth:
    """How far a run is from float64 after each stage, and how far rounding may take it."""

    dtype: np.dtype
    errors: Mapping[str, float]
    bounds: Mapping[str, float]


def depth_of(run: Capture, truth: Capture, model: ReplayedModel) -> Depth:
    """Of another run of the same model on the same images."""
    exact = truth.activations
    errors = {name: relative(array, exact[name]) for name, array in run.activations.items() if name in exact}
    return Depth(run.dtype, errors, bounds(model, run.dtype, exact=exact))


def compare_captures(
    a: Capture, b: Capture, *, truth: Capture | None = None, model: ReplayedModel | None = None
) -> Comparison:
    """Compare every activation that both have, in A's order.

    Args:
        a: the reference.
        b: what is measured.
        truth: the float64 reference for both.
        model: the model, from which bounds on rounding are derived; without it they are estimated by depth.

    Raises:
        VitportError: if the runs saw different images, have no activation in common, or a shape differs.
    """
    if a.images.shape != b.images.shape or not np.array_equal(a.images, b.images):
        raise VitportError(f"{a.title} and {b.title} ran on different images: capture both on the same input.")
    names = [
        name
        for name in a.activations
        if name in b.activations and not cut_otherwise(name, a.activations, b.activations)
    ]
    if not names:
        raise VitportError(f"{a.title} and {b.title} have no activation in common: capture both again.")
    allowed_a = _allowed(a, truth, model)
    same = a.dtype == b.dtype and set(b.activations) <= set(allowed_a)
    allowed_b = allowed_a if same else _allowed(b, truth, model)
    exact = {} if truth is None else truth.activations
    rows = tuple(
        row_of(name, (a.title, a.activations[name]), (b.title, b.activations[name]), exact.get(name), allowed_a[name],
               allowed_b[name])
        for name in names
    )  # fmt: skip
    only_a = tuple(name for name in a.activations if name not in names)
    only_b = tuple(name for name in b.activations if name not in names)
    return Comparison(a, b, rows, only_a, only_b, truth)


def cut_otherwise(name: str, a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    """Whether a layer within a block has other shapes, as that of other windows has: the tokens behind it tell more."""
    return path_in_block(name) != name and a[name].shape != b[name].shape


def _allowed(run: Capture, truth: Capture | None, model: ReplayedModel | None) -> Mapping[str, float]:
    if truth is None or model is None:
        return bounds_without_weights(run.activations, run.dtype)
    allowed = bounds(model, run.dtype, exact=truth.activations)
    rest = {name: array for name, array in run.activations.items() if name not in allowed}
    return allowed | (bounds_without_weights(rest, run.dtype) if rest else {})


def row_of(
    name: str,
    a: tuple[str, np.ndarray],
    b: tuple[str, np.ndarray],
    exact: np.ndarray | None,
    allowed_a: float,
    allowed_b: float,
) -> Row:
    """One activation.

    Args:
        name: of the activation.
        a: title of the run, and what it computed.
        b: the same of the other.
        exact: the same in float64, if it is known.
        allowed_a: the largest relative L2 distance from ``exact`` that rounding in A explains.
        allowed_b: the same of B.

    Raises:
        VitportError: if the shapes differ.
    """
    (title_a, x), (title_b, y) = a, b
    if x.shape != y.shape:
        raise VitportError(
            f"{name} has shape {x.shape} in {title_a} and {y.shape} in {title_b}: they are not runs of one model."
        )
    finest, tolerance = max(x.dtype, y.dtype, key=roundoff), allowed_a + allowed_b

    def sums(x: np.ndarray, y: np.ndarray, *exact: np.ndarray) -> tuple[PairSums, UlpCounts, tuple[float, ...]]:
        ulps = count_ulps(ulp_distance(y.astype(finest, copy=False), x.astype(finest, copy=False)))
        x, y = x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)
        gaps = [side - right for right in exact for side in (x, y)]
        return pair_sums(y, x), ulps, tuple(dot(each, each) for each in (*gaps, *exact))

    parts = over(sums, x, y, *(() if exact is None else (exact,)))
    together, counted = joined_sums([part[0] for part in parts]), joined([part[1] for part in parts])
    difference = difference_of(together)
    error_a = error_b = None
    if exact is not None:
        far_a, far_b, size = np.sqrt(np.sum([part[2] for part in parts], axis=0)) if parts else (0.0, 0.0, 0.0)
        error_a, error_b = ratio(float(far_a), float(size)), ratio(float(far_b), float(size))
    verdict = _verdict(difference.relative <= tolerance, error_a, error_b, allowed_a, allowed_b)
    return Row(
        name, x.shape, difference, ulps_of(counted, y.astype(finest, copy=False), x.astype(finest, copy=False)),
        _beyond(x, y, together, tolerance), tolerance, error_a, error_b, verdict,
        allowed_a, allowed_b, counted.by_power, _by_token(x, y) if is_tokens(name) and x.ndim == 3 else None,
    )  # fmt: skip


def _beyond(x: np.ndarray, y: np.ndarray, sums: PairSums, tolerance: float) -> float:
    """Share of elements further apart than ``tolerance`` times the root mean square of ``x``."""
    if not x.size:
        return 0.0
    limit = tolerance * math.sqrt(sums.squares[2] / x.size)
    if sums.largest <= limit:
        return 0.0

    def count(x: np.ndarray, y: np.ndarray) -> int:
        return int(np.count_nonzero(~(np.abs(x.astype(np.float64) - y.astype(np.float64)) <= limit)))

    return sum(over(count, x, y)) / x.size


def _by_token(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = x[0].astype(np.float64), y[0].astype(np.float64)
    return np.linalg.norm(b - a, axis=-1) / np.maximum(np.linalg.norm(a, axis=-1), np.finfo(np.float64).tiny)


def _verdict(near: bool, error_a: float | None, error_b: float | None, allowed_a: float, allowed_b: float) -> Verdict:
    if error_a is None or error_b is None:
        return "rounding" if near else "apart"
    far_a, far_b = not error_a <= allowed_a, not error_b <= allowed_b
    if not (far_a or far_b):
        return "rounding"
    if far_a and far_b:
        ratio = error_a / error_b if error_b else np.inf
        return "a" if ratio > 2 else "b" if ratio < 0.5 else "both"
    return "a" if far_a else "b"
