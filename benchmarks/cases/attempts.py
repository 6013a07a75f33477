"""What each of the things is worth that were done to a training step."""

from __future__ import annotations

from typing import Any

from benchmarks.alternate import Bench, Say, alternate, seconds
from benchmarks.cases.case import CPU, HUGE, Case, Outcome, Scale
from benchmarks.cases.training import JAX, TOLERANCE
from benchmarks.measure import Comparison, Measured, faster

MODEL = "vit_small_patch16_224"
OURS, TWIN = "as it is", "as it is, again"
WITHOUT = "benchmarks.undone:train"
SIDES: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "tokens (B, N, D)": (WITHOUT, {"without": "rows"}, HUGE),
    "tokens (B, N, D), barriers": (WITHOUT, {"without": "barrier"}, HUGE),
    "LayerNorm's factors in one": (WITHOUT, {"without": "norm"}, HUGE),
    "jax.nn.gelu": (WITHOUT, {"without": "gelu"}, HUGE),
    "written attention": (JAX, {"attention": "written"}, HUGE),
    "ordinary pages": (JAX, {}, {}),
    "one scan": (JAX, {"scan": True}, HUGE),
    "everything kept": (JAX, {"remat": "none"}, HUGE),
    "rematerialised": (JAX, {"remat": "full"}, HUGE),
    "one scan, rematerialised": (JAX, {"scan": True, "remat": "full"}, HUGE),
}
WORDS = """The training step of ViT-S/16 at batch 8 with one thing undone, or done besides: its time over that of the
step as it is, and the bytes of the compiled program's temporaries. [performance-notes.md](performance-notes.md) says
why."""


def case() -> Case:
    """The only one of its kind."""
    return Case("attempts", "What each thing is worth, ViT-S/16 training step", WORDS, run)


def run(scale: Scale, say: Say) -> Outcome:
    """All of them in turns."""
    told = {"subject": scale.subject(MODEL), "batch": scale.batches(8)[0], "analyse": True}
    with Bench(say) as bench:
        for name in (OURS, TWIN):
            bench.start(name, JAX, told, CPU | HUGE)
        for name, (target, how, pages) in SIDES.items():
            bench.start(name, target, told | how, CPU | pages)
        bench.agree(OURS, list(SIDES), TOLERANCE)
        found = alternate([bench.turn(name, "step") for name in (OURS, *SIDES, TWIN)], scale.pace)
        ours = seconds(OURS, found[OURS])
        times = [Comparison(f"{name}, time", seconds(name, found[name]), ours, False) for name in SIDES]
        kept = {name: _temporaries(bench, name) for name in (OURS, *SIDES)}
        memory = [
            Comparison(f"{name}, temporaries", kept[name], kept[OURS], False)
            for name in SIDES
            if name != "ordinary pages"
        ]
        return Outcome.of(bench, times + memory, [faster("batch 8", ours, seconds(TWIN, found[TWIN]))])


def _temporaries(bench: Bench, name: str) -> Measured:
    return Measured(name, "B", (float(bench.facts[name]["temporary"]),))
