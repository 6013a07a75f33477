"""Two runs, activation by activation: how far apart they are, and which is further from float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vit_parity.bound import bounds, bounds_without_weights, relative
from vit_parity.capture import Capture
from vit_parity.measure import Difference, measure
from vit_parity.points import is_tokens, path_in_block
from vit_parity.replay import ReplayedModel
from vit_parity.ulp import Ulps, measure_ulps, roundoff
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

    @property
    def verdict_in_words(self) -> str:
        """As tables and reports show it."""
        return _IN_WORDS[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; docs/comparing.md describes them."""
        return dataclasses.asdict(self) | {"shape": list(self.shape)}


@dataclass(frozen=True)
class Comparison:
    """Two runs compared."""

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
    names = [name for name in a.activations if name in b.activations and not _cut_otherwise(name, a, b)]
    if not names:
        raise VitportError(f"{a.title} and {b.title} have no activation in common: capture both again.")
    allowed_a = _allowed(a, truth, model)
    same = a.dtype == b.dtype and set(b.activations) <= set(allowed_a)
    allowed_b = allowed_a if same else _allowed(b, truth, model)
    rows = tuple(_row(name, a, b, truth, allowed_a[name], allowed_b[name]) for name in names)
    only_a = tuple(name for name in a.activations if name not in names)
    only_b = tuple(name for name in b.activations if name not in names)
    return Comparison(a, b, rows, only_a, only_b, truth)


def _cut_otherwise(name: str, a: Capture, b: Capture) -> bool:
    """Whether a layer within a block has other shapes, as that of other windows has: the tokens behind it tell more."""
    return path_in_block(name) != name and a.activations[name].shape != b.activations[name].shape


def _allowed(run: Capture, truth: Capture | None, model: ReplayedModel | None) -> Mapping[str, float]:
    if truth is None or model is None:
        return bounds_without_weights(run.activations, run.dtype)
    allowed = bounds(model, run.dtype, exact=truth.activations)
    rest = {name: array for name, array in run.activations.items() if name not in allowed}
    return allowed | (bounds_without_weights(rest, run.dtype) if rest else {})


def _row(name: str, a: Capture, b: Capture, truth: Capture | None, allowed_a: float, allowed_b: float) -> Row:
    x, y = a.activations[name], b.activations[name]
    if x.shape != y.shape:
        raise VitportError(
            f"{name} has shape {x.shape} in {a.title} and {y.shape} in {b.title}: they are not runs of one model."
        )
    difference, tolerance = measure(y, x), allowed_a + allowed_b
    gap = np.abs(x.astype(np.float64) - y.astype(np.float64))
    mean_square = float(np.sqrt((x.astype(np.float64) ** 2).mean())) if x.size else 0.0
    beyond = float((~(gap <= tolerance * mean_square)).mean()) if x.size else 0.0
    exact = None if truth is None else truth.activations.get(name)
    error_a, error_b = (None, None) if exact is None else (relative(x, exact), relative(y, exact))
    verdict = _verdict(difference.relative <= tolerance, error_a, error_b, allowed_a, allowed_b)
    finest = max(x.dtype, y.dtype, key=roundoff)
    ulps = measure_ulps(y.astype(finest), x.astype(finest))
    return Row(name, x.shape, difference, ulps, beyond, tolerance, error_a, error_b, verdict)


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
