"""The guard: measured ratios against the committed ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.measure import Comparison, standard_error
from benchmarks.results import Result

ERRORS = 3.0
"""A ratio has changed if it is this many standard errors off; by chance, one in 700 is, in the worse direction."""
LEAST = math.log(1.01)
"""Bytes repeat almost exactly: a change of a ratio by less than a hundredth is none, however small its noise."""
Verdict = Literal["worse", "better", "same"]


@dataclass(frozen=True)
class Checked:
    """One ratio and the committed one."""

    name: str
    committed: float
    measured: float
    allowed: float
    """The relative change in that direction that noise explains."""
    verdict: Verdict

    @property
    def words(self) -> str:
        """A line for the reader."""
        change = self.measured / self.committed - 1
        return (
            f"{self.verdict:6} {self.name}: {self.measured:.3g}, committed {self.committed:.3g} "
            f"({change:+.1%}, noise {self.allowed:.1%})"
        )


def check(committed: Mapping[str, Result], measured: Mapping[str, Result]) -> list[Checked]:
    """Every comparison that both have."""
    found = []
    for case, result in measured.items():
        if case not in committed:
            continue
        before = {comparison.name: comparison for comparison in committed[case].outcome.comparisons}
        for comparison in result.outcome.comparisons:
            if comparison.name in before:
                name = f"{case}/{comparison.name}"
                found.append(compare(name, before[comparison.name], comparison, result.noise))
    return found


def compare(name: str, before: Comparison, now: Comparison, noise: float) -> Checked:
    """By the logarithms of the rounds' ratios.

    The variance of their difference is that of both medians, and twice that of the processes: ``noise`` is how far two
    that run the same code lay apart in this run, which differs from process to process but not from round to round.
    """
    errors = [standard_error([math.log(ratio) for ratio in each.ratios]) for each in (before, now)]
    allowed = max(LEAST, ERRORS * math.sqrt(sum(error * error for error in errors) + 2 * noise * noise))
    change = math.log(now.ratio.median / before.ratio.median)
    better = change if now.higher_is_better else -change
    verdict: Verdict = "worse" if better < -allowed else "better" if better > allowed else "same"
    explained = abs(math.expm1(math.copysign(allowed, change)))
    return Checked(name, before.ratio.median, now.ratio.median, explained, verdict)


def not_checked(committed: Mapping[str, Result], measured: Mapping[str, Result]) -> list[str]:
    """Comparisons of the measured cases that only one of the two has."""
    names = [
        {f"{case}/{each.name}" for case in measured if case in results for each in results[case].outcome.comparisons}
        for results in (committed, measured)
    ]
    return sorted(names[0] ^ names[1])
