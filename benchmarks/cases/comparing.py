"""What ``vitport compare`` costs, over the forward passes that it needs."""

from __future__ import annotations

import dataclasses

from benchmarks.alternate import Bench, Say, alternate, peak, seconds
from benchmarks.cases.case import CPU, Case, Outcome, Scale
from benchmarks.measure import Comparison, Measured

MODEL = "vit_small_patch14_dinov2"
ROUNDS = 3
MEMORY = 1e9
WORDS = """DINOv2-S/14 on one image of 518 pixels, PyTorch against JAX in float32, random weights: `vit_parity`'s
comparison of every activation, with `--explain`, and with `--report`, over the forward passes that each needs (both in
float32, float64 in both, float64 once more for the bounds; for causes float64 once for each run; for a report bfloat16,
float16 and their bounds), models built and compiled in both. Memory: what a comparison has resident beyond what it had
before, models included, over its bound on activations, 1 GB."""


def case() -> Case:
    """The case of the comparison."""
    return Case("compare", "Comparing, DINOv2-S/14 at 518 pixels", WORDS, run)


def run(scale: Scale, say: Say) -> Outcome:
    """Each part in alternation with its forward passes."""
    told = {"subject": scale.subject(MODEL)}
    pace = dataclasses.replace(scale.pace, rounds=min(ROUNDS, scale.pace.rounds))
    comparisons = []
    with Bench(say) as bench:
        bench.start("comparison", "benchmarks.sides_compare:comparison", told, CPU)
        bench.start("forward passes", "benchmarks.sides_compare:forward", told, CPU)
        for part in ("compare", "explain", "report"):
            turns = [bench.turn(name, part, fixed=True) for name in ("comparison", "forward passes")]
            found = alternate(turns, pace)
            times = {name: seconds(name, samples) for name, samples in found.items()}
            comparisons.append(Comparison(part, times["comparison"], times["forward passes"], False))
            held = peak("comparison", found["comparison"])
            before = bench.facts["comparison"]["resident"]
            above = Measured("comparison", "B", tuple(value - before for value in held.values))
            limit = Measured("bound", "B", (MEMORY,) * len(above.values))
            comparisons.append(Comparison(f"{part}, memory", above, limit, False))
        return Outcome.of(bench, comparisons)
