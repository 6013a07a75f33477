"""The result of a verification: every check with its bound, as data and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_parity.bound import BY_DEPTH, bound_by_depth
from vit_parity.capture import Activations
from vit_spec import Config


@dataclass(frozen=True)
class Stage:
    """One comparison of one intermediate result."""

    name: str
    max_abs: float
    relative: float
    """``max_abs`` over the largest absolute value of the reference."""
    bound: float
    """The largest ``relative`` that rounding explains."""

    @property
    def passed(self) -> bool:
        return self.relative <= self.bound  # NaN fails


@dataclass(frozen=True)
class Check:
    """One way to compute the model against another, on one image."""

    actual: str
    reference: str
    dtype: str
    """The dtype whose roundoff the bounds are derived from."""
    image: str
    judged: bool
    """Whether a failure fails the certificate; float32 beside float64 is reported only, since it sees less."""
    stages: tuple[Stage, ...]

    @property
    def first_failure(self) -> Stage | None:
        return next((stage for stage in self.stages if not stage.passed), None)


@dataclass(frozen=True)
class Certificate:
    """What was checked, and the outcome."""

    checks: tuple[Check, ...]
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    """Files with their hashes, versions, config values with their origins, changes: JSON values."""

    @property
    def first_failure(self) -> tuple[Check, Stage] | None:
        """The first judged check that failed, and its first stage that did."""
        found = ((it, stage) for it in self.checks if it.judged and (stage := it.first_failure) is not None)
        return next(found, None)

    @property
    def passed(self) -> bool:
        return self.first_failure is None

    @property
    def verdict(self) -> str:
        """One sentence: where the result first differs, or the largest difference within rounding."""
        if self.first_failure is not None:
            it, stage = self.first_failure
            return (
                f"{it.actual} differs from {it.reference} first at {stage.name}: by {stage.relative:.1e} of the "
                f"largest value on {it.image}, where rounding explains {stage.bound:.1e}"
            )
        worst = max((s.relative for it in self.checks if it.judged for s in it.stages), default=0.0)
        return f"every block agrees with the source within rounding: at most {worst:.1e} of the largest value"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        checks = [
            {
                "actual": it.actual,
                "reference": it.reference,
                "dtype": it.dtype,
                "image": it.image,
                "judged": it.judged,
                "stages": {
                    stage.name: {
                        "max_abs": stage.max_abs,
                        "relative": stage.relative,
                        "bound": stage.bound,
                        "passed": stage.passed,
                    }
                    for stage in it.stages
                },
            }
            for it in self.checks
        ]
        outcome = {"passed": self.passed, "verdict": self.verdict, "bound": BY_DEPTH}
        return {**outcome, **self.circumstances, "comparisons": checks}


def stages(actual: Activations, reference: Activations, config: Config, dtype: str) -> tuple[Stage, ...]:
    """Every intermediate result that both have, in the order of the forward pass.

    Args:
        actual: what is checked.
        reference: what it is checked against.
        config: of the model.
        dtype: whose roundoff the bounds are derived from.
    """
    found: list[Stage] = []
    for at, name in enumerate(name for name in reference if name in actual):
        largest = float(np.abs(reference[name]).max(initial=0.0))
        max_abs = _distance(actual[name], reference[name])
        relative = max_abs / largest if largest else max_abs
        found.append(Stage(name, max_abs, relative, bound_by_depth(config, np.dtype(dtype), at)))
    return tuple(found)


def _distance(actual: np.ndarray, reference: np.ndarray) -> float:
    """Largest absolute difference; infinite if the shapes differ."""
    if actual.shape != reference.shape:
        return float("inf")
    return float(np.abs(actual - reference).max(initial=0.0))
