"""What the measurements should reach, in one place: patterns over ``CASE/COMPARISON``, the first match counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchmarks.measure import Comparison, summary


@dataclass(frozen=True)
class Target:
    """A bound on a ratio, or on a side's own median."""

    pattern: str
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    """A further goal."""
    seconds: bool = False
    """The bound is on our own median, the side ``over``, in seconds."""

    @property
    def words(self) -> str:
        """As the page says it."""
        unit = " s" if self.seconds else ""
        bound = f"≥ {self.at_least:g}{unit}" if self.at_least is not None else f"≤ {self.at_most:g}{unit}"
        return bound + (f", aim {self.aim:g}{unit}" if self.aim is not None else "")

    def met(self, comparison: Comparison) -> bool:
        """By the median."""
        value = summary(comparison.over.values).median if self.seconds else comparison.ratio.median
        least = -math.inf if self.at_least is None else self.at_least
        return least <= value <= (math.inf if self.at_most is None else self.at_most)


TARGETS: Sequence[Target] = (
    Target("inference-*/* timm", at_least=0.95, aim=1.0),
    Target("inference-*/* transformers", at_least=0.95, aim=1.0),
    Target("inference-*/*, onnxruntime", at_least=1.0),
    Target("inference-*/*, OpenVINO", at_least=1.0),
    Target("inference-*/* of JAX's best product", at_least=0.85),
    Target("training-*/batch 8, timm", at_least=0.8, aim=1.0),
    Target("dinov3-*/batch *, timm", at_least=1.0),
    Target("dinov3-*/batch *, transformers", at_least=1.0),
    Target("swin*/batch *, timm", at_least=1.0),
    Target("swin*/batch *, transformers", at_least=1.0),
    Target("swin*/batch *, onnxruntime", at_least=1.0),
    Target("swin*/batch *, OpenVINO", at_least=1.0),
    Target("compile/scan, unrolled", at_most=0.5),
    Target("compile/scan, torch.compile", at_most=1.0),
    Target("compile/* second start, until the step runs", at_least=3.0),
    Target("memory/*, timm", at_most=1.0),
    Target("remat/*, temporaries", at_most=0.5),
    Target("remat/*, time", at_most=1.35),
    Target("startup/vitport --help", at_most=0.3, seconds=True),
    Target("startup/import vit_jax", at_most=1.1),
    Target("conversion/*", at_most=2.0),
    Target("bucket/*, memory", at_most=1.25),
    Target("bucket/*", at_least=0.9),
    Target("compare/*, memory", at_most=2.0),
    Target("compare/*", at_most=4.0),
    Target("input/*", at_least=1.0),
    Target("gpu-?/inference, ours, fused attention", at_least=1.0),
    Target("gpu-?/training, ours, fused attention", at_least=1.0),
    Target("gpu-l/MFU, training, ours, fused attention", at_least=0.5),
)


def target_of(case: str, comparison: str) -> Target | None:
    """The target of a comparison; ``None`` for one that is stated beside the others."""
    name = f"{case}/{comparison}"
    return next((target for target in TARGETS if fnmatchcase(name, target.pattern)), None)
