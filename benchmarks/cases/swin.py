"""Swin Transformers: forward passes and training steps."""

from __future__ import annotations

from functools import partial

from benchmarks.alternate import Bench, Build, Say, alternate, seconds, twin_of
from benchmarks.cases import inference, training
from benchmarks.cases.case import CPU, EXPLICIT, HUGE, Case, Outcome, Scale
from benchmarks.measure import Comparison, faster

OURS = inference.OURS
TWIN = twin_of(OURS)
OTHERS = {
    name: inference.OTHERS[name]
    for name in ("timm", "timm, huge pages", "transformers", "onnxruntime", "OpenVINO", "vit_torch", EXPLICIT)
}
STEPS = {
    OURS: training.SIDES[OURS],
    "timm": training.SIDES["timm"],
    "transformers": Build(training.TORCH, {"library": "transformers"}),
    "timm, huge pages": training.SIDES["timm, huge pages"],
    EXPLICIT: Build(training.JAX, {"attention": "explicit"}, CPU | HUGE),
}
TOLERANCE = 1e-4
"""Relative L2 distance of logits. Version 2 multiplies cosines, and their roundings, by up to 100."""
WORDS = """Float32, by the same method as for the Vision Transformers above: all sides have the same random weights and
images, and their answers are compared first. timm runs its default, eager; `transformers` its own, which is fused
attention in version 1 and attention step by step in version 2."""
MODELS = {
    "swin": ("swin_tiny_patch4_window7_224", "Swin-T"),
    "swinv2": ("swinv2_tiny_window8_256", "SwinV2-T, 256 pixels"),
}


def cases() -> list[Case]:
    """Two a model."""
    return [
        case
        for short, (model, title) in MODELS.items()
        for case in (
            Case(f"{short}-inference", f"Inference, {title}", WORDS, partial(infer, model)),
            Case(f"{short}-training", f"Training step, {title}", WORDS, partial(train, model)),
        )
    ]


def infer(model: str, scale: Scale, say: Say) -> Outcome:
    """Batches of 1 and 8."""
    batches = scale.batches(1, 8)
    told = {"subject": scale.subject(model), "batches": batches}
    comparisons: list[Comparison] = []
    twins: list[Comparison] = []
    with Bench(say) as bench:
        for name in (OURS, TWIN):
            bench.build(name, inference.MINE[name].told(told))
        others = [name for name, build in OTHERS.items() if bench.build(name, build.told(told))]
        bench.agree(OURS, others, TOLERANCE)
        for batch in batches:
            found = alternate([bench.turn(name, str(batch)) for name in (OURS, *others, TWIN)], scale.pace)
            ours = seconds(OURS, found[OURS])
            comparisons += [faster(f"batch {batch}, {name}", ours, seconds(name, found[name])) for name in others]
            twins.append(faster(f"batch {batch}", ours, seconds(TWIN, found[TWIN])))
        return Outcome.of(bench, comparisons, twins)


def train(model: str, scale: Scale, say: Say) -> Outcome:
    """A batch of 8."""
    return training.steps(STEPS, model, scale, say)
