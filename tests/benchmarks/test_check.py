"""The guard. Oracle: allowed changes worked out by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.cases import Outcome
from benchmarks.check import check, compare, not_checked
from benchmarks.measure import Comparison, Measured
from benchmarks.results import Result

ROUNDS = (1.0, 1.02, 0.98, 1.01, 0.99)


def of(ratio: float, *, name: str = "x", higher: bool = True, rounds: tuple[float, ...] = ROUNDS) -> Comparison:
    """Rounds around a ratio; their quartiles lie 1 % from it."""
    ones = Measured("under", "s", (1.0,) * len(rounds))
    return Comparison(name, Measured("over", "s", tuple(ratio * x for x in rounds)), ones, higher)


ERROR = 1.2533 * math.log(1.01 / 0.99) / 1.3490 / math.sqrt(5)
"""0.0083: of each median's logarithm."""


def test_what_noise_allows_is_three_standard_errors_of_the_difference() -> None:
    found = compare("x", of(1.0), of(1.0), noise=0.0)
    assert math.log1p(found.allowed) == pytest.approx(3 * ERROR * math.sqrt(2))
    assert found.allowed == pytest.approx(0.0359, abs=1e-4)


@pytest.mark.parametrize(
    ("ratio", "higher", "verdict"),
    [
        (0.97, True, "same"),  # 3.05 % in the logarithm; allowed are 3.53 %
        (0.96, True, "worse"),  # 4.08 %
        (1.04, True, "better"),  # 3.92 %
        (1.03, False, "same"),
        (1.04, False, "worse"),
        (0.96, False, "better"),
    ],
)
def test_a_ratio_is_worse_beyond_the_noise_alone(ratio, higher, verdict) -> None:
    assert compare("x", of(1.0, higher=higher), of(ratio, higher=higher), noise=0.0).verdict == verdict


@pytest.mark.parametrize(("ratio", "verdict"), [(0.9901, "same"), (0.9899, "worse"), (1.0101, "better")])
def test_what_repeats_exactly_may_change_by_a_hundredth(ratio, verdict) -> None:
    assert compare("x", of(1.0, rounds=(1.0,) * 5), of(ratio, rounds=(1.0,) * 5), noise=0.0).verdict == verdict


def test_processes_that_differ_by_themselves_allow_more() -> None:
    """Twins 5 % apart: 3 sqrt(2 x 0.0083² + 2 x 0.05²) = 0.21503, of an error given to two digits."""
    found = compare("x", of(1.0), of(0.82), noise=0.05)
    assert -math.log1p(-found.allowed) == pytest.approx(0.21503, abs=5e-5)
    assert found.verdict == "same"
    assert compare("x", of(1.0), of(0.80), noise=0.05).verdict == "worse"


def result(*comparisons: Comparison, twins: tuple[Comparison, ...] = ()) -> Result:
    return Result(Outcome(comparisons, twins), {"cores": "2"}, "python -m benchmarks", "2026-01-01", 1.0)


def test_comparisons_are_found_by_name_and_the_others_told() -> None:
    committed = {"training-s": result(of(1.0), of(1.0, name="gone")), "input": result(of(1.0))}
    measured = {"training-s": result(of(0.9), of(1.0, name="new"))}
    found = check(committed, measured)
    assert [(checked.name, checked.verdict) for checked in found] == [("training-s/x", "worse")]
    assert not_checked(committed, measured) == ["training-s/gone", "training-s/new"]
    assert found[0].words == "worse  training-s/x: 0.9, committed 1 (-10.0%, noise 3.5%)"


def test_twins_of_the_same_run_count() -> None:
    committed = {"training-s": result(of(1.0))}
    assert check(committed, {"training-s": result(of(0.9))})[0].verdict == "worse"
    assert check(committed, {"training-s": result(of(0.9), twins=(of(1.05),))})[0].verdict == "same"
