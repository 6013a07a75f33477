"""Differences in units in the last place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vit_spec import VitportError

ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit roundoff of each dtype: the largest relative error of rounding one number to nearest."""
_BITS = {8: np.int64, 4: np.int32, 2: np.int16}


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
    a, b = _ordered(actual.astype(dtype)), _ordered(reference.astype(dtype))
    distance = np.abs(a - b).astype(np.float64)
    if dtype.itemsize == 8:  # the difference of two 64-bit integers may overflow
        far = (a < 0) != (b < 0)
        distance = np.where(far, np.abs(a.astype(np.float64)) + np.abs(b.astype(np.float64)), distance)
    return np.where(np.isnan(actual) | np.isnan(reference), np.nan, distance)


def measure_ulps(actual: np.ndarray, reference: np.ndarray) -> Ulps:
    """Median, 99th percentile and maximum of :func:`ulp_distance`; zeros for empty arrays."""
    distance = ulp_distance(actual, reference)
    if not distance.size:
        return Ulps(0.0, 0.0, 0.0)
    median, p99 = np.quantile(distance, (0.5, 0.99))
    return Ulps(float(median), float(p99), float(distance.max()))


def _ordered(array: np.ndarray) -> np.ndarray:
    """Integers in the order of the floats that they stand for, zero at zero (int64)."""
    bits = np.ascontiguousarray(array).view(_BITS[array.dtype.itemsize]).astype(np.int64)
    magnitude = bits & ((1 << (8 * array.dtype.itemsize - 1)) - 1)
    return np.where(bits < 0, -magnitude, magnitude)
