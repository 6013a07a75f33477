"""Differences in units in the last place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vit_parity.pieces import over
from vit_spec import VitportError

ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit roundoff of each dtype: the largest relative error of rounding one number to nearest."""
_BITS = {8: np.int64, 4: np.int32, 2: np.int16}
_MANTISSA = 5
"""Bits of the mantissa that a bin of :class:`UlpCounts` keeps: each distance below 64 has a bin of its own."""
_BINS = 2 + (65 << _MANTISSA)
_ONE = 1023 << _MANTISSA
"""The first bits of 1.0: exponent and the bits kept."""


@dataclass(frozen=True)
class Ulps:
    """How many representable numbers lie between two arrays' elements."""

    median: float
    p99: float
    max: float


def roundoff(dtype: np.dtype) -> float:
    """Unit roundoff of a float dtype.

    Raises:
        VitportError: for another dtype.
    """
    if dtype.name not in ROUNDOFF:
        raise VitportError(f"dtype {dtype.name} cannot be compared: it must be one of {', '.join(ROUNDOFF)}.")
    return ROUNDOFF[dtype.name]


def ulp_distance(actual: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Number of steps between representable numbers from one to the other, element by element, as float64.

    Both are taken in the coarser of their dtypes. 0 and -0 are one number, the smallest negative number lies one step
    below it; from NaN to anything, itself included, it is NaN.

    Raises:
        VitportError: if the shapes differ, or a dtype is not a float.
    """
    if actual.shape != reference.shape:
        raise VitportError(
            f"Arrays of shape {actual.shape} and {reference.shape} cannot be compared: their shapes must be equal."
        )
    dtype = max(actual.dtype, reference.dtype, key=roundoff)
    actual, reference = actual.astype(dtype, copy=False), reference.astype(dtype, copy=False)
    a, b = _ordered(actual), _ordered(reference)
    distance = np.abs(a - b).astype(np.float64)
    if dtype.itemsize == 8:  # the difference of two 64-bit integers may overflow
        far = (a < 0) != (b < 0)
        distance = np.where(far, np.abs(a.astype(np.float64)) + np.abs(b.astype(np.float64)), distance)
    distance[np.isnan(actual) | np.isnan(reference)] = np.nan
    return distance


@dataclass(frozen=True)
class UlpCounts:
    """How often each distance occurs, in bins: one for zero, then of a 32nd of a power of two, integers to 64 alone."""

    counts: np.ndarray
    """(bins,), int64."""
    nan: int
    """Elements without a distance."""
    largest: float

    @property
    def by_power(self) -> tuple[int, ...]:
        """How many distances are 0, and how many from each power of two to the next; ends at the last that occurs."""
        powers = self.counts[1:-1].reshape(-1, 1 << _MANTISSA).sum(axis=1)
        found = np.concatenate([self.counts[:1], powers])
        return tuple(found[: 1 + max(np.flatnonzero(found), default=0)].tolist())

    def quantiles(self, shares: Sequence[float], distances: Callable[[int], np.ndarray]) -> list[float]:
        """Exact quantiles, linear between neighbours as numpy's; NaN if any distance is.

        Args:
            shares: from 0 to 1.
            distances: all of one bin, which is asked where the bin's number does not tell them.
        """
        size = int(self.counts.sum())
        if self.nan or not size:
            return [np.nan if self.nan else 0.0] * len(shares)
        ends, asked = np.cumsum(self.counts), {}

        def ranked(rank: int) -> float:
            at = int(np.searchsorted(ends, rank, side="right"))
            if at <= (1 + _MANTISSA) << _MANTISSA:
                return float(_value(at))
            if at not in asked:
                asked[at] = np.sort(distances(at))
            return float(asked[at][rank - (ends[at] - self.counts[at])])

        found = []
        for share in shares:
            place = share * (size - 1)
            low = int(place)
            both = [ranked(low), ranked(min(low + 1, size - 1))]
            found.append(float(np.quantile(both, place - low)))
        return found


def count_ulps(distance: np.ndarray) -> UlpCounts:
    """The distances of one piece, counted."""
    missing = np.isnan(distance)
    nan = int(np.count_nonzero(missing))
    distance = distance[~missing] if nan else distance
    return UlpCounts(np.bincount(_bin(distance), minlength=_BINS), nan, float(distance.max(initial=0.0)))


def joined(parts: Sequence[UlpCounts]) -> UlpCounts:
    """The pieces together."""
    none = np.zeros(_BINS, np.int64)
    return UlpCounts(
        sum((part.counts for part in parts), none),
        sum(part.nan for part in parts),
        max((part.largest for part in parts), default=0.0),
    )


def ulps_of(counted: UlpCounts, actual: np.ndarray, reference: np.ndarray) -> Ulps:
    """Median, 99th percentile and maximum of distances that have been counted."""

    def distances(at: int) -> np.ndarray:
        def chosen(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            distance = ulp_distance(a, b)
            return distance[_bin(distance) == at]

        return np.concatenate(over(chosen, actual, reference))

    median, p99 = counted.quantiles((0.5, 0.99), distances)
    return Ulps(median, p99, np.nan if counted.nan else counted.largest)


def measure_ulps(actual: np.ndarray, reference: np.ndarray) -> Ulps:
    """Median, 99th percentile and maximum of :func:`ulp_distance`; zeros for empty arrays."""
    if actual.shape != reference.shape:
        ulp_distance(actual, reference)
    counted = joined(over(lambda a, b: count_ulps(ulp_distance(a, b)), actual, reference))
    return ulps_of(counted, actual, reference)


def _bin(distance: np.ndarray) -> np.ndarray:
    return np.maximum((distance.view(np.int64) >> (52 - _MANTISSA)) - (_ONE - 1), 0)


def _value(at: int) -> float:
    """The least distance of a bin."""
    if not at:
        return 0.0
    power, part = divmod(at - 1, 1 << _MANTISSA)
    return 2.0**power * (1 + part / (1 << _MANTISSA))


def _ordered(array: np.ndarray) -> np.ndarray:
    """Integers in the order of the floats that they stand for, zero at zero (int64)."""
    kind = _BITS[array.dtype.itemsize]
    bits = np.ascontiguousarray(array).view(kind)
    sign = bits >> kind(8 * array.dtype.itemsize - 1)  # -1 for negative numbers, else 0
    return (((bits & np.iinfo(kind).max) ^ sign) - sign).astype(np.int64, copy=False)
