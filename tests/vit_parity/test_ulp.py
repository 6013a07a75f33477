"""Units in the last place against numbers worked out by hand, and numpy's ``nextafter``."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from vit_parity.ulp import ROUNDOFF, Ulps, measure_ulps, roundoff, ulp_distance
from vit_spec import VitportError


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_neighbours_are_one_step_apart_also_across_zero_and_powers_of_two(dtype):
    """Oracle: nextafter, which numpy and ml_dtypes define by the bits."""
    start = np.array([1.0, -1.0, 0.0, 2.0, 3.14, -0.0078125, 60000.0], dtype)
    for goal in (np.inf, -np.inf):
        away = start
        for steps in range(1, 4):
            away = np.nextafter(away, np.array(goal, dtype))
            np.testing.assert_array_equal(ulp_distance(away, start), steps)


def test_zeros_are_one_number_and_signs_are_crossed_through_zero():
    """1 and -1 in float32 are 127 * 2**23 steps from zero each; in float64 the sum needs more than 63 bits."""
    assert ulp_distance(np.float32([0.0]), np.float32([-0.0])) == 0
    assert ulp_distance(np.float32([1.0]), np.float32([-1.0])) == 2 * 127 * 2**23
    huge = np.finfo(np.float64).max
    assert ulp_distance(np.array([huge]), np.array([-huge])) == pytest.approx(2 * 0x7FEFFFFFFFFFFFFF, rel=1e-15)


def test_the_coarser_dtype_is_the_measure():
    """1 + 2**-30 is 1 in float32."""
    assert ulp_distance(np.array([1 + 2.0**-30]), np.float32([1.0])) == 0


def test_nan_is_never_near():
    """Not even to itself."""
    assert np.isnan(ulp_distance(np.float32([np.nan, 1]), np.float32([np.nan, np.nan]))).all()
    assert np.isnan(measure_ulps(np.float32([np.nan, 1]), np.float32([1, 1])).max)


def test_median_99th_percentile_and_maximum():
    """Of 0 … 100 steps: 50, 99, 100."""
    start = np.ones(101, np.float32)
    away = (start.view(np.int32) + np.arange(101, dtype=np.int32)).view(np.float32)
    assert measure_ulps(away, start) == Ulps(50, 99, 100)
    assert measure_ulps(np.zeros(0, np.float32), np.zeros(0, np.float32)) == Ulps(0, 0, 0)


def test_roundoff_is_half_the_spacing_at_one():
    """By numpy's and ml_dtypes' own finfo."""
    for name, value in ROUNDOFF.items():
        info = ml_dtypes.finfo(name)
        assert value == float(info.eps) / 2
        assert roundoff(np.dtype(info.dtype)) == value


def test_integers_and_other_shapes_are_refused():
    with pytest.raises(VitportError, match="int64"):
        ulp_distance(np.array([1]), np.array([1]))
    with pytest.raises(VitportError, match=r"\(1,\) and \(2,\)"):
        ulp_distance(np.ones(1), np.ones(2))
