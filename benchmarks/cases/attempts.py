"""What each of the things is worth that were done to a training step."""

from __future__ import annotations

from benchmarks.alternate import Bench, Build, Say, in_groups, seconds, twin_of
from benchmarks.cases.case import CPU, HUGE, Case, Outcome, Scale
from benchmarks.cases.training import JAX, TOLERANCE
from benchmarks.measure import Comparison, Measured, faster

MODEL = "vit_small_patch16_224"
OURS = "as it is"
WITHOUT = "benchmarks.undone:train"
SIDES = {
    OURS: Build(JAX, {}, CPU | HUGE),
    "tokens (B, N, D)": Build(WITHOUT, {"without": "rows"}, CPU | HUGE),
    "tokens (B, N, D), barriers": Build(WITHOUT, {"without": "barrier"}, CPU | HUGE),
    "LayerNorm's factors in one": Build(WITHOUT, {"without": "norm"}, CPU | HUGE),
    "jax.nn.gelu": Build(WITHOUT, {"without": "gelu"}, CPU | HUGE),
    "written attention": Build(JAX, {"attention": "written"}, CPU | HUGE),
    "ordinary pages": Build(JAX, {}, CPU),
    "one scan": Build(JAX, {"scan": True}, CPU | HUGE),
    "everything kept": Build(JAX, {"remat": "none"}, CPU | HUGE),
    "rematerialised": Build(JAX, {"remat": "full"}, CPU | HUGE),
    "one scan, rematerialised": Build(JAX, {"scan": True, "remat": "full"}, CPU | HUGE),
}
WORDS = """The training step of ViT-S/16 at batch 8 with one thing undone, or done besides: its time over that of the
step as it is, and the bytes of the compiled program's temporaries. [performance-notes.md](../performance-notes.md) says
why."""


def case() -> Case:
    """The only one of its kind."""
    return Case("attempts", "What each thing is worth, ViT-S/16 training step", WORDS, run)


def run(scale: Scale, say: Say) -> Outcome:
    """A few at a time."""
    told = {"subject": scale.subject(MODEL), "batch": scale.batches(8)[0], "analyse": True}
    comparisons: list[Comparison] = []
    twins: list[Comparison] = []
    with Bench(say) as bench:
        sides = {name: build.told(told) for name, build in SIDES.items()}
        for found in in_groups(bench, OURS, sides, "step", TOLERANCE, scale.pace):
            times = {name: seconds(name, samples) for name, samples in found.items()}
            ours, twin = times.pop(OURS), times.pop(twin_of(OURS))
            comparisons += [Comparison(f"{name}, time", other, ours, False) for name, other in times.items()]
            twins.append(faster(f"batch 8, beside {' and '.join(times)}", ours, twin))
        comparisons += [
            Comparison(f"{name}, temporaries", _temporaries(bench, name), _temporaries(bench, OURS), False)
            for name in SIDES
            if name not in (OURS, "ordinary pages")
        ]
        return Outcome.of(bench, comparisons, twins)


def _temporaries(bench: Bench, name: str) -> Measured:
    return Measured(name, "B", (float(bench.facts[name]["temporary"]),))
