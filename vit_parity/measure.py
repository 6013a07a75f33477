"""The difference of two arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vit_parity.pieces import over
from vit_spec import VitportError


@dataclass(frozen=True)
class Difference:
    """Four measures of ``actual - reference``, taken in float64."""

    max_abs: float
    """Largest absolute difference, in the arrays' own unit."""
    mean_abs: float
    """Mean absolute difference, in the arrays' own unit."""
    relative: float
    """L2 norm of the difference over L2 norm of the reference; no unit."""
    cosine: float
    """Cosine of the angle between the two, each taken as one long vector."""


def measure(actual: np.ndarray, reference: np.ndarray) -> Difference:
    """Compare two arrays of one shape, of any float dtype.

    Two arrays of zeros have relative difference 0 and cosine 1; where only one is zero, the cosine is 0 and, if that
    one is the reference, the relative difference infinite. NaN anywhere makes every measure NaN.

    Raises:
        VitportError: if the shapes differ.
    """
    if actual.shape != reference.shape:
        raise VitportError(
            f"Arrays of shape {actual.shape} and {reference.shape} cannot be compared: their shapes must be equal."
        )
    return difference_of(joined_sums(over(pair_sums, actual, reference)))


@dataclass(frozen=True)
class PairSums:
    """What two pieces contribute to a :class:`Difference`."""

    largest: float
    absolute: float
    squares: tuple[float, float, float]
    """Of the difference, of ``actual``, of ``reference``."""
    product: float
    size: int


def pair_sums(actual: np.ndarray, reference: np.ndarray) -> PairSums:
    """Of one piece, in float64."""
    a, b = actual.astype(np.float64, copy=False), reference.astype(np.float64, copy=False)
    difference = a - b
    squares = (dot(difference, difference), dot(a, a), dot(b, b))
    np.abs(difference, out=difference)
    return PairSums(float(difference.max()), float(difference.sum()), squares, dot(a, b), difference.size)


def joined_sums(parts: Sequence[PairSums]) -> PairSums:
    """The pieces together; NaN in any stays NaN."""
    if not parts:
        return PairSums(0.0, 0.0, (0.0, 0.0, 0.0), 0.0, 0)
    squares = np.sum([part.squares for part in parts], axis=0)
    return PairSums(
        largest=float(np.max([part.largest for part in parts])),
        absolute=float(np.sum([part.absolute for part in parts])),
        squares=(float(squares[0]), float(squares[1]), float(squares[2])),
        product=float(np.sum([part.product for part in parts])),
        size=sum(part.size for part in parts),
    )


def difference_of(sums: PairSums) -> Difference:
    """The measures of the whole arrays."""
    norm_difference, norm_a, norm_b = (math.sqrt(square) for square in sums.squares)
    return Difference(
        max_abs=sums.largest,
        mean_abs=sums.absolute / sums.size if sums.size else 0.0,
        relative=ratio(norm_difference, norm_b),
        cosine=sums.product / norm_a / norm_b if norm_a and norm_b else float(norm_a == norm_b),
    )


def ratio(difference: float, reference: float) -> float:
    """Of two norms; infinite if only the reference is zero."""
    if reference == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / reference


def relative(actual: np.ndarray, reference: np.ndarray) -> float:
    """L2 norm of the difference over that of the reference, in float64; infinite if only the reference is zero."""

    def sums(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
        gap = a - b
        return dot(gap, gap), dot(b, b)

    parts = over(sums, *np.broadcast_arrays(actual, reference))
    gap, size = np.sum(parts, axis=0) if parts else (0.0, 0.0)
    return ratio(math.sqrt(gap), math.sqrt(size))


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors, in one thread."""
    return float(np.einsum("i,i->", a, b))


def measure_all(actual: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """:func:`measure` for every name that both have, in the order of ``actual``."""
    return {name: measure(array, reference[name]) for name, array in actual.items() if name in reference}
