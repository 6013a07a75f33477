"""DINOv3: forward passes of a model with rotary positions, which reads images of any size."""

from __future__ import annotations

from functools import partial

from benchmarks.alternate import Say
from benchmarks.cases import inference
from benchmarks.cases.case import EXPLICIT, Case, Outcome, Scale

OTHERS = {name: inference.OTHERS[name] for name in ("timm", "timm, huge pages", "transformers", "vit_torch", EXPLICIT)}
MODEL = "vit_small_patch16_dinov3"
SIZES = (224, 512)
WORDS = """Features of the class token, float32, by the same method as for the Vision Transformers above: all sides have
the same random weights and images, and their answers are compared first. timm and `transformers` compute angles in
float32, vitport takes them from one table of float64."""


def cases() -> list[Case]:
    """One for each image size."""
    return [
        Case(f"dinov3-{side}", f"Inference, DINOv3 ViT-S/16, {side} pixels", WORDS, partial(run, side))
        for side in SIZES
    ]


def run(side: int, scale: Scale, say: Say) -> Outcome:
    """Batches of 1 and 8."""
    subject = scale.subject(MODEL)
    changes = {"image_size": side, "pool": "token"} | dict(subject["changes"])  # timm's own pooling is the mean
    return inference.beside(OTHERS, inference.TOLERANCE, subject | {"changes": changes}, scale, say)
