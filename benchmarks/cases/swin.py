"""Swin Transformers: forward passes and training steps."""

from __future__ import annotations

from functools import partial

from benchmarks.alternate import Build, Say
from benchmarks.cases import inference, training
from benchmarks.cases.case import CPU, EXPLICIT, HUGE, Case, Outcome, Scale

OURS = inference.OURS
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
    return inference.beside(OTHERS, TOLERANCE, scale.subject(model), scale, say)


def train(model: str, scale: Scale, say: Say) -> Outcome:
    """A batch of 8."""
    return training.steps(STEPS, model, scale, say)
