"""Statistics of rounds: medians, quartiles, ratios and their noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Summary:
    """Median and quartiles."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""


def summary(values: Sequence[float]) -> Summary:
    """Quartiles interpolate linearly between the values, as numpy's percentiles do."""
    if len(values) == 1:
        return Summary(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(median, low, high)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the median of normally distributed values: 1.2533 s / sqrt(n).

    s = (third - first quartile) / 1.3490 estimates their standard deviation; one disturbed round does not change it.
    """
    found = summary(values)
    return 1.2533 * (found.high - found.low) / 1.3490 / math.sqrt(len(values))


@dataclass(frozen=True)
class Measured:
    """The measurements of one side: a number for each round."""

    name: str
    unit: str
    """``s``, ``B`` or ``GFLOP/s``."""
    values: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Two sides that took turns; their ratio is taken round by round, so that a slowdown of both cancels."""

    name: str
    """Unique within its case; targets and committed results are found by it."""
    over: Measured
    under: Measured
    """The ratio is ``over`` divided by ``under``."""
    higher_is_better: bool = True
    """For ours."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """One for each round."""
        return tuple(a / b for a, b in zip(self.over.values, self.under.values, strict=True))

    @property
    def ratio(self) -> Summary:
        """Of the rounds' ratios."""
        return summary(self.ratios)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """The inverse of :meth:`to_dict`."""
        sides = {
            side: Measured(**(values[side] | {"values": tuple(values[side]["values"])})) for side in ("over", "under")
        }
        return cls(values["name"], **sides, higher_is_better=values["higher_is_better"])


def faster(name: str, ours: Measured, other: Measured) -> Comparison:
    """The other's seconds over ours: how many times as fast ours is."""
    return Comparison(name, over=other, under=ours)


def twin_noise(twins: Sequence[Comparison]) -> float:
    """How much two processes that run the same code differ: root mean square of the logarithms of their ratios."""
    logs = [math.log(twin.ratio.median) for twin in twins]
    return math.sqrt(statistics.fmean(log * log for log in logs)) if logs else 0.0
