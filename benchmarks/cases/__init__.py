"""Everything that ``python -m benchmarks`` measures, a file for each kind."""

from __future__ import annotations

from benchmarks.cases import bucket, comparing, compilation, dinov3, files, inference, memory, startup, swin, training
from benchmarks.cases.case import Case, Outcome, Scale

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *inference.cases(), *training.cases(), *dinov3.cases(), *swin.cases(), compilation.case(), *memory.cases(),
        startup.case(), *files.cases(), bucket.case(), comparing.case(),
    )
}  # fmt: skip
"""By name, in the order of measurement and of the page."""

__all__ = ["CASES", "Case", "Outcome", "Scale"]
