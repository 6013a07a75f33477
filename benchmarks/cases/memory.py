"""Memory of a training step, and how much of it rematerialisation saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.alternate import Bench, Pace, Say, alternate, peak, seconds
from benchmarks.cases.case import CPU, HUGE, Case, Outcome, Scale
from benchmarks.cases.training import JAX, OURS, TOLERANCE, TORCH, TWIN
from benchmarks.measure import Comparison, Measured
from benchmarks.process import Sample

MODEL = "vit_small_patch16_224"
ROUNDS = 3
"""Memory hardly changes from step to step; the step that gave the answers has warmed every side up."""
PEAK_WORDS = """Peak resident memory of the whole process during a training step (interpreter, libraries and compiled
code included), ours over timm with fused AdamW, float32, after warm-up; and the part above what the libraries held
before anything was built."""
REMAT_WORDS = """`remat=full`, unrolled and as one scan, over the same step without rematerialisation, batch 32,
float32: bytes of the compiled program's temporaries, which hold gradients and activations (XLA's `memory_analysis`),
seconds, and the peak resident memory of the process."""
REMAT = {
    "unrolled": {"remat": "none"},
    "unrolled, remat": {"remat": "full"},
    "scan": {"scan": True, "remat": "none"},
    "scan, remat": {"scan": True, "remat": "full"},
}


def cases() -> list[Case]:
    """Compared with timm, and with ourselves."""
    return [
        Case("memory", "Memory, ViT-S/16 training step", PEAK_WORDS, run),
        Case("remat", "Rematerialisation, ViT-S/16 training step", REMAT_WORDS, run_remat),
    ]


def run(scale: Scale, say: Say) -> Outcome:
    """Batches of 8 and 32; one process for each, as a larger batch leaves its memory to the allocator."""
    pace = _pace(scale)
    comparisons: list[Comparison] = []
    twins: list[Comparison] = []
    distances: dict[str, float] = {}
    left_out: dict[str, str] = {}
    facts: dict[str, Any] = {}
    for batch in scale.batches(8, 32):
        told = {"subject": scale.subject(MODEL), "batch": batch, "losses": 1}
        with Bench(say) as bench:
            for name in (OURS, TWIN):
                bench.start(name, JAX, told, CPU | HUGE)
            others = ["timm"] if bench.start("timm", TORCH, told | {"library": "timm"}) else []
            bench.agree(OURS, others, TOLERANCE)
            found = alternate([bench.turn(name, "step", fixed=True) for name in (OURS, *others, TWIN)], pace)
        held = {name: peak(name, samples) for name, samples in found.items()}
        comparisons += [Comparison(f"batch {batch}, {name}", held[OURS], held[name], False) for name in others]
        above = {name: less(held[name], bench.facts[name]["libraries"]) for name in (OURS, *others)}
        comparisons += [
            Comparison(f"batch {batch}, {name}, above the libraries", above[OURS], above[name], False)
            for name in others
        ]
        twins.append(Comparison(f"batch {batch}", held[OURS], held[TWIN], False))
        distances |= {f"{name}, batch {batch}": distance for name, distance in bench.distances.items()}
        left_out |= bench.left_out
        facts |= {f"{name}, batch {batch}": told for name, told in bench.facts.items()}
    return Outcome(comparisons, twins, distances, left_out, facts)


def less(held: Measured, libraries: float) -> Measured:
    """Memory beyond what the libraries had resident before anything was built."""
    return Measured(held.name, held.unit, tuple(value - libraries for value in held.values))


def run_remat(scale: Scale, say: Say) -> Outcome:
    """A batch of 32."""
    told = {"subject": scale.subject(MODEL), "batch": scale.batches(32)[0], "losses": 1, "analyse": True}
    with Bench(say) as bench:
        for name, how in REMAT.items():
            bench.start(name, JAX, told | how, CPU | HUGE)
        bench.agree("unrolled", list(REMAT)[1:], TOLERANCE)
        found = alternate([bench.turn(name, "step", fixed=True) for name in REMAT], _pace(scale))
        temporary = {name: bench.facts[name]["temporary"] for name in REMAT}
        comparisons = [
            comparison for way in ("unrolled", "scan") for comparison in saved(way, f"{way}, remat", found, temporary)
        ]
        return Outcome.of(bench, comparisons)


def saved(
    way: str, remat: str, found: Mapping[str, Sequence[Sample]], temporary: Mapping[str, float]
) -> list[Comparison]:
    """What rematerialisation saves and costs: temporaries, time, resident memory.

    Args:
        way: the side that keeps everything.
        remat: the side that does not.
        found: samples of both.
        temporary: bytes of both programs' temporaries; their ratio is that of every round.
    """
    rounds = len(found[way])
    held = {name: Measured(name, "B", (float(temporary[name]),) * rounds) for name in (remat, way)}
    times = {name: seconds(name, found[name]) for name in (remat, way)}
    resident = {name: peak(name, found[name]) for name in (remat, way)}
    return [
        Comparison(f"{way}, {what}", sides[remat], sides[way], higher_is_better=False)
        for what, sides in (("temporaries", held), ("time", times), ("resident", resident))
    ]


def _pace(scale: Scale) -> Pace:
    return dataclasses.replace(scale.pace, rounds=min(ROUNDS, scale.pace.rounds))
