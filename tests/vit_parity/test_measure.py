"""The measures against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vit_parity import Difference, measure, measure_all
from vit_spec import VitportError


def test_measures_are_those_worked_out_by_hand():
    """Difference (0, 2, -2, 0) of a reference of norm 5: sqrt(8) / 5; the cosine is 17 / (5 * sqrt(17))."""
    reference = np.array([[3.0, 0.0], [4.0, 0.0]])
    actual = np.array([[3.0, 2.0], [2.0, 0.0]])
    found = measure(actual, reference)
    assert found.max_abs == 2.0
    assert found.mean_abs == 1.0
    assert found.relative == pytest.approx(math.sqrt(8) / 5, rel=1e-15)
    assert found.cosine == pytest.approx(17 / (5 * math.sqrt(17)), rel=1e-15)


def test_relative_difference_is_relative_to_the_second_argument():
    """|2 - 1| / 1 = 1, |1 - 2| / 2 = 0.5."""
    one, two = np.array([1.0]), np.array([2.0])
    assert (measure(two, one).relative, measure(one, two).relative) == (1.0, 0.5)


def test_opposite_and_orthogonal_arrays_have_cosine_minus_one_and_zero():
    """By the definition of the cosine."""
    a = np.array([1.0, 2.0, -3.0])
    assert measure(a, -a).cosine == pytest.approx(-1, rel=1e-15)
    assert measure(a, np.array([2.0, -1.0, 0.0])).cosine == pytest.approx(0, abs=1e-15)


def test_differences_below_the_inputs_precision_are_seen():
    """In float32, 1 + 2**-30 - 1 is 0; in float64 it is 2**-30."""
    found = measure(np.array([1.0 + 2.0**-30]), np.array([1.0], np.float32))
    assert found.max_abs == 2.0**-30


def test_half_precision_sums_do_not_overflow():
    """300 numbers of 300: their squares sum to 2.7e7, beyond float16's 65504."""
    found = measure(np.full(300, 303, np.float16), np.full(300, 300, np.float16))
    assert found.relative == pytest.approx(0.01)
    assert found.cosine == pytest.approx(1)


@pytest.mark.parametrize(
    ("actual", "reference", "expected"),
    [
        ([0.0], [0.0], Difference(0, 0, 0, 1)),
        ([1.0], [0.0], Difference(1, 1, math.inf, 0)),
        ([0.0], [1.0], Difference(1, 1, 1, 0)),
    ],
)
def test_zeros_have_defined_measures(actual, reference, expected):
    """As the docstring states them."""
    assert measure(np.array(actual), np.array(reference)) == expected


def test_nan_on_either_side_shows_in_every_measure():
    """A NaN must never look like agreement."""
    good, bad = np.array([1.0, 2.0]), np.array([1.0, np.nan])
    for found in (measure(good, bad), measure(bad, good)):
        assert all(math.isnan(value) for value in (found.max_abs, found.mean_abs, found.relative, found.cosine))


def test_other_shapes_are_refused_even_where_they_broadcast():
    """A broadcast would compare one token with all."""
    with pytest.raises(VitportError, match=r"\(2, 3\) and \(1, 3\)"):
        measure(np.zeros((2, 3)), np.zeros((1, 3)))


def test_measure_all_pairs_by_name():
    """Names that only one side has are left out, the order is the first's."""
    found = measure_all({"b": np.ones(2), "a": np.zeros(2), "c": np.ones(1)}, {"a": np.ones(2), "b": np.ones(2)})
    assert {name: entry.max_abs for name, entry in found.items()} == {"b": 0, "a": 1}
    assert list(found) == ["b", "a"]
