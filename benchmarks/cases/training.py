"""Training steps."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.alternate import Bench, Say, alternate, seconds
from benchmarks.cases.case import CPU, HUGE, WRITTEN, Case, Outcome, Scale
from benchmarks.measure import faster

OURS, TWIN = "ours", "ours again"
JAX, TORCH = "benchmarks.sides_jax:train", "benchmarks.sides_torch:train"
ORDINARY = "ours, ordinary pages"
OTHERS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "timm": ({"library": "timm"}, {}),
    "timm, huge pages": ({"library": "timm"}, HUGE),
    "timm, torch.compile": ({"library": "timm", "compiled": True}, {}),
}
TOLERANCE = 1e-4
"""Relative L2 distance of the losses of three steps: AdamW makes whole steps of gradients that are rounding noise, so
that the losses of small models have been 2.4e-6 apart; a step left out would set them apart by more than half."""
WORDS = """Forward, backward and AdamW, batch 8, float32: the trainer's own step (`training.jit_engine`) on a batch that
lies on the device, in huge pages as `vitport train` asks for them, and in ordinary ones; timm with its own fused
attention and `torch.optim.AdamW(fused=True)`, as one runs it, and in huge pages.
The losses of the first three steps are compared before anything is timed."""


def cases() -> list[Case]:
    """One a model."""
    names = {"ti": "vit_tiny_patch16_224", "s": "vit_small_patch16_224"}
    return [
        Case(f"training-{short}", f"Training step, ViT-{short.title()}/16", WORDS, partial(run, model))
        for short, model in names.items()
    ]


def run(model: str, scale: Scale, say: Say) -> Outcome:
    """A batch of 8."""
    batch = scale.batches(8)[0]
    told = {"subject": scale.subject(model), "batch": batch}
    with Bench(say) as bench:
        bench.start(OURS, JAX, told, CPU | HUGE)
        bench.start(TWIN, JAX, told, CPU | HUGE)
        others = [name for name, (how, pages) in OTHERS.items() if bench.start(name, TORCH, told | how, pages)]
        bench.start(WRITTEN, JAX, told | {"attention": "written"}, CPU | HUGE)
        bench.start(ORDINARY, JAX, told, CPU)
        others += [WRITTEN, ORDINARY]
        bench.agree(OURS, others, TOLERANCE)
        found = alternate([bench.turn(name, "step") for name in (OURS, *others, TWIN)], scale.pace)
        ours = seconds(OURS, found[OURS])
        comparisons = [faster(f"batch {batch}, {name}", ours, seconds(name, found[name])) for name in others]
        return Outcome.of(bench, comparisons, [faster(f"batch {batch}", ours, seconds(TWIN, found[TWIN]))])
