"""A case, and how much of it is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.alternate import Bench, Pace, Say
from benchmarks.measure import Comparison
from vit_spec import get_model

SMALL: Mapping[str, Mapping[str, Any]] = {
    "vit": {"depth": 2, "image_size": 64},
    "swin": {"depths": (1, 2, 1, 1), "image_size": 64, "window_sizes": 2},
}
"""Family → changes to a small model."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    pace: Pace = field(default_factory=Pace)
    small: bool = False
    """Few blocks and 64 pixels, to see whether everything runs."""

    def subject(self, model: str) -> dict[str, Any]:
        """The fields of a ``Subject``."""
        return {"model": model, "changes": SMALL[get_model(model).config.family] if self.small else {}}

    def batches(self, *sizes: int) -> tuple[int, ...]:
        """Of images; 1, 2, … at the small scale."""
        return tuple(range(1, len(sizes) + 1)) if self.small else sizes


@dataclass(frozen=True)
class Outcome:
    """What a case found."""

    comparisons: Sequence[Comparison]
    twins: Sequence[Comparison] = ()
    """Two processes that run the same code; their difference is noise."""
    distances: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, bench: Bench, comparisons: Sequence[Comparison], twins: Sequence[Comparison] = ()) -> Outcome:
        """With what the bench wrote down."""
        return cls(comparisons, twins, bench.distances, bench.left_out, bench.facts)


@dataclass(frozen=True)
class Case:
    """One measurement that can run alone."""

    name: str
    title: str
    words: str
    """What is measured and how, in words for the page."""
    run: Callable[[Scale, Say], Outcome]


CPU = {"JAX_PLATFORMS": "cpu"}
"""Environment of JAX's sides here; ``benchmarks.gpu`` has its own."""
HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Huge pages, as ``vitport train`` asks the C library for them."""
EXPLICIT = "ours, explicit attention"
"""What stands beside them: attention step by step, the model's default."""
ORDINARY = "ours, ordinary pages"
"""Ours outside of these commands, without huge pages."""
