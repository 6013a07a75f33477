"""Training steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from benchmarks.alternate import Bench, Build, Say, in_groups, seconds, twin_of
from benchmarks.cases.case import CPU, EXPLICIT, HUGE, ORDINARY, Case, Outcome, Scale
from benchmarks.measure import Comparison, faster

OURS = "ours"
TWIN = twin_of(OURS)
JAX, TORCH = "benchmarks.sides_jax:train", "benchmarks.sides_torch:train"
SIDES = {
    OURS: Build(JAX, {}, CPU | HUGE),
    "timm": Build(TORCH, {"library": "timm"}),
    "timm, huge pages": Build(TORCH, {"library": "timm"}, HUGE),
    "timm, torch.compile": Build(TORCH, {"library": "timm", "compiled": True}),
    EXPLICIT: Build(JAX, {"attention": "explicit"}, CPU | HUGE),
    ORDINARY: Build(JAX, {}, CPU),
}
TOLERANCE = 1e-4
"""Relative L2 distance of the losses of three steps: AdamW makes whole steps of gradients that are rounding noise, so
that the losses of small models have been 2.4e-6 apart; a step left out would set them apart by more than half."""
WORDS = """Forward, backward and AdamW, batch 8, float32: the trainer's own step (`training.jit_engine`) on a batch that
is already on the device, in huge pages as `vitport train` asks for them, and in ordinary ones; timm with its own fused
attention and `torch.optim.AdamW(fused=True)`, in ordinary and in huge pages. The losses of the first three steps are
compared before anything is timed. Two sides at a time take turns with ours and with another process of the same code,
so that memory suffices for all; ours is timed again beside every two."""


def cases() -> list[Case]:
    """One for each model."""
    names = {"ti": "vit_tiny_patch16_224", "s": "vit_small_patch16_224"}
    return [
        Case(f"training-{short}", f"Training step, ViT-{short.title()}/16", WORDS, partial(run, model))
        for short, model in names.items()
    ]


def run(model: str, scale: Scale, say: Say) -> Outcome:
    """A batch of 8."""
    return steps(SIDES, model, scale, say)


def steps(builds: Mapping[str, Build], model: str, scale: Scale, say: Say) -> Outcome:
    """Any sides' steps beside ours, a batch of 8."""
    batch = scale.batches(8)[0]
    told = {"subject": scale.subject(model), "batch": batch}
    comparisons: list[Comparison] = []
    twins: list[Comparison] = []
    with Bench(say) as bench:
        sides = {name: build.told(told) for name, build in builds.items()}
        for found in in_groups(bench, OURS, sides, "step", TOLERANCE, scale.pace):
            times = {name: seconds(name, samples) for name, samples in found.items()}
            ours, twin = times.pop(OURS), times.pop(TWIN)
            comparisons += [faster(f"batch {batch}, {name}", ours, other) for name, other in times.items()]
            twins.append(faster(f"batch {batch}, beside {' and '.join(times)}", ours, twin))
        return Outcome.of(bench, comparisons, twins)
