"""What a verification says: every comparison with its bound, as data and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_parity.capture import Activations
from vit_spec import ViTConfig

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit roundoff: half the distance between 1 and the next value."""
GROWTH = 8.0
"""How far above the expected growth of rounding errors a bound lies."""
BOUND = "8 u sqrt(n) (k + 2): u unit roundoff, n longest sum in a layer, k blocks before; of the largest value"


@dataclass(frozen=True)
class Stage:
    """One comparison of one intermediate result."""

    name: str
    max_abs: float
    relative: float
    """``max_abs`` over the largest absolute value of the reference."""
    bound: float
    """What rounding may make of ``relative``."""

    @property
    def passed(self) -> bool:
        return self.relative <= self.bound  # NaN is no pass


@dataclass(frozen=True)
class Comparison:
    """One way to compute the model against another, on one picture."""

    actual: str
    reference: str
    dtype: str
    """Whose roundoff the bounds are made of."""
    picture: str
    judged: bool
    """Whether a failure fails the certificate: float32 beside float64 is told and not judged, for it sees less."""
    stages: tuple[Stage, ...]

    @property
    def first_failure(self) -> Stage | None:
        return next((stage for stage in self.stages if not stage.passed), None)


@dataclass(frozen=True)
class Certificate:
    """What was compared, and what came of it."""

    comparisons: tuple[Comparison, ...]
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    """Files with their hashes, versions, facts with their origins, changes: JSON values."""

    @property
    def first_failure(self) -> tuple[Comparison, Stage] | None:
        """The first judged comparison that failed, with its first stage that did."""
        found = ((it, stage) for it in self.comparisons if it.judged and (stage := it.first_failure) is not None)
        return next(found, None)

    @property
    def passed(self) -> bool:
        return self.first_failure is None

    @property
    def verdict(self) -> str:
        """One sentence: where the result goes wrong first, or how near it is at worst."""
        if self.first_failure is not None:
            it, stage = self.first_failure
            return (
                f"{it.actual} leaves {it.reference} first at {stage.name}: by {stage.relative:.1e} of the largest "
                f"value on {it.picture}, where rounding explains {stage.bound:.1e}"
            )
        worst = max((s.relative for it in self.comparisons if it.judged for s in it.stages), default=0.0)
        return f"every block agrees with the source within rounding: at most {worst:.1e} of the largest value"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        comparisons = [
            {
                "actual": it.actual,
                "reference": it.reference,
                "dtype": it.dtype,
                "picture": it.picture,
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
            for it in self.comparisons
        ]
        outcome = {"passed": self.passed, "verdict": self.verdict, "bound": BOUND}
        return {**outcome, **self.circumstances, "comparisons": comparisons}


def stages(actual: Activations, reference: Activations, config: ViTConfig, dtype: str) -> tuple[Stage, ...]:
    """Every intermediate result that both have, in the order of the forward pass.

    The bound grows as a random walk over the longest sum of a layer, and with the number of layers: rounding errors
    are independent, and each block adds its own to those it is given.
    """
    longest = max(config.embed_dim, config.hidden_dim, config.in_channels * config.patch_size**2, config.num_tokens)
    per_layer = GROWTH * ROUNDING[dtype] * float(longest) ** 0.5
    found: list[Stage] = []
    for at, name in enumerate(name for name in reference if name in actual):
        largest = float(np.abs(reference[name]).max(initial=0.0))
        max_abs = _distance(actual[name], reference[name])
        relative = max_abs / largest if largest else max_abs
        found.append(Stage(name, max_abs, relative, per_layer * (at + 2)))
    return tuple(found)


def _distance(actual: np.ndarray, reference: np.ndarray) -> float:
    """Largest absolute difference; infinite for arrays of two shapes."""
    if actual.shape != reference.shape:
        return float("inf")
    return float(np.abs(actual - reference).max(initial=0.0))
