"""Conversions compared with copies, and images per second: ``benchmarks.convert`` and ``benchmarks.input_pipeline``."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import convert
from benchmarks.alternate import Bench, Say, Turn, alternate, seconds
from benchmarks.cases.case import Case, Outcome, Scale
from benchmarks.input_pipeline import make_images
from benchmarks.measure import Comparison, faster
from benchmarks.process import Sample

MODEL = "vit_base_patch16_224"
FLAVOUR = "Google's ViT"
PAIRS = (("timm", "google"), ("google", "timm"), ("timm", "huggingface-vit"), ("timm", "flax"))
IMAGES = 600
CONVERSION_WORDS = """`conversion.load` and `conversion.save` of ViT-B/16, until the result is flushed, over a plain
copy of the source that is flushed too; each in its own process. [Cost of a conversion](convert_cost.md) has every pair
of formats, and memory."""
INPUT_WORDS = f"""JPEG files of 500 x 375 pixels, decoded, randomly cropped, resized to 224 x 224 and flipped: our
training stream over a plain loop of Pillow in the same number of processes, whose batches return to the caller
({IMAGES} images a round). 0 workers: everything in one process, ours in threads."""


def cases() -> list[Case]:
    """Conversions and images."""
    return [
        Case("conversion", "Conversion, ViT-B/16", CONVERSION_WORDS, run_conversion),
        Case("input", "Input pipeline", INPUT_WORDS, run_input),
    ]


@dataclass(frozen=True)
class Child:
    """One of ``benchmarks.convert``'s processes, whose result is removed."""

    function: str
    arguments: tuple[Any, ...]
    target: Path

    def measure(self, part: str, count: int) -> Sample:
        """Once; ``part`` and ``count`` are ignored."""
        del part, count
        found = convert.in_child(self.function, *self.arguments)
        convert.remove(self.target)
        return Sample(found["seconds"], found.get("peak", float("nan")))


def run_conversion(scale: Scale, say: Say) -> Outcome:
    """Every pair and its copy in turn."""
    model = "vit_tiny_patch16_224" if scale.small else MODEL
    comparisons = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "target"
        for pair in PAIRS:
            source = Path(folder) / pair[0]
            if not source.exists():
                convert.in_child("write", str(source), pair[0], model, FLAVOUR)
            name = f"{pair[0]} to {pair[1]}"
            say(f"  {name}")
            paths = (str(source), str(target))
            turns = [
                Turn("copy", Child("copy", paths, target), fixed=True),
                Turn(name, Child("convert", (*paths, pair, model, FLAVOUR), target), fixed=True),
            ]
            found = alternate(turns, scale.pace)
            comparisons.append(Comparison(name, seconds(name, found[name]), seconds("copy", found["copy"]), False))
    return Outcome(comparisons)


def run_input(scale: Scale, say: Say) -> Outcome:
    """With threads, and with two workers."""
    comparisons, twins = [], []
    with tempfile.TemporaryDirectory() as folder, Bench(say) as bench:
        make_images(Path(folder), 100 if scale.small else IMAGES)
        told = {"folder": folder}
        for name, side in (("ours", "ours"), ("ours again", "ours"), ("Pillow", "plain")):
            bench.start(name, f"benchmarks.sides_data:{side}", told)
        for workers in (0, 2):
            pace = dataclasses.replace(scale.pace, seconds=0.0)
            found = alternate([bench.turn(name, str(workers)) for name in bench.workers], pace)
            times = {name: seconds(name, samples) for name, samples in found.items()}
            comparisons.append(faster(f"{workers} workers, Pillow", times["ours"], times["Pillow"]))
            twins.append(faster(f"{workers} workers", times["ours"], times["ours again"]))
        return Outcome.of(bench, comparisons, twins)
