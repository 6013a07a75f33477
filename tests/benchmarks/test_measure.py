"""Statistics of rounds. Oracle: numbers worked out by hand, and numpy's percentiles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.measure import Comparison, Measured, faster, standard_error, summary, twin_noise


def measured(*values: float, name: str = "a") -> Measured:
    return Measured(name, "s", values)


def test_quartiles_are_those_of_numpy() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    found = summary(values)
    assert np.allclose([found.low, found.median, found.high], np.percentile(values, [25, 50, 75]), rtol=1e-15)


def test_one_round_has_no_spread() -> None:
    assert summary([2.0]) == summary([2.0, 2.0, 2.0])


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which everything takes ten times as long leaves the ratio alone; medians of sides would too, but not
    quartiles."""
    comparison = faster("x", measured(1, 10, 2), measured(2, 20, 4, name="b"))
    assert comparison.ratios == (2.0, 2.0, 2.0)
    assert comparison.ratio.low == comparison.ratio.high == 2.0


def test_sides_of_unequal_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="longer"):
        _ = faster("x", measured(1, 2), measured(1)).ratios


def test_the_standard_error_is_that_of_medians_of_normal_numbers() -> None:
    """The deviation of the medians of many samples. Measured: the mean of the estimates, from quartiles of 41, is
    4.3 % below it."""
    samples = np.random.default_rng(0).standard_normal((4000, 41))
    actual = np.median(samples, axis=1).std()
    estimated = np.mean([standard_error(sample.tolist()) for sample in samples])
    assert estimated == pytest.approx(actual, rel=0.06)


def test_the_noise_of_twins_is_the_root_mean_square() -> None:
    """Ratios of 1.1 and 1 / 1.2: logarithms 0.09531 and -0.18232, root mean square 0.14547."""
    twins = [Comparison("x", measured(1.1), measured(1.0)), Comparison("y", measured(1.0), measured(1.2))]
    assert twin_noise(twins) == pytest.approx(math.sqrt((math.log(1.1) ** 2 + math.log(1.2) ** 2) / 2))
    assert twin_noise(twins) == pytest.approx(0.14547, abs=1e-5)
    assert twin_noise([]) == 0.0


def test_a_comparison_is_read_back_as_it_was_written() -> None:
    comparison = Comparison("x", measured(1, 2), measured(3, 4, name="b"), higher_is_better=False)
    assert Comparison.from_dict(comparison.to_dict()) == comparison
