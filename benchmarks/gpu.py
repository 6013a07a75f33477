"""All measurements on one NVIDIA GPU, in under 8 minutes: ``python -m benchmarks.gpu [--smoke]``.

It needs a JAX for CUDA, and PyTorch, timm and torchvision for the same card, in this environment or in that of
``--torch-python``. Sides take turns on the card, as in ``python -m benchmarks``. With ``--smoke`` everything runs on a
CPU at sizes that measure nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.__main__ import DOCS, chosen, measure, say
from benchmarks.alternate import Bench, Pace, Say, alternate
from benchmarks.cases.case import CPU, Case, Outcome, Scale
from benchmarks.command import run
from benchmarks.measure import Comparison, Measured
from benchmarks.page import machines, section
from benchmarks.process import Sample
from benchmarks.results import Result, write_results
from benchmarks.subject import Subject
from vit_spec import VitportError, forward_flops

JAX, TORCH = "benchmarks.sides_jax", "benchmarks.sides_torch"
FUSED, EXPLICIT, TIMM = "ours, fused attention", "ours, explicit attention", "timm"
WRITTEN = "ours, written out"
LEARNT = 0.95
"""Accuracy of the digits that a run must reach: two points below what the preset does."""
TOLERANCE = 5e-2
"""Relative L2 distance in bfloat16, whose rounding of 4e-3 adds up over the blocks; a wrong model is some 1 away."""
PARITY_TOLERANCE = 1e-2
"""The same in float32, with TensorFloat-32, which rounds to 5e-4."""
HEAD = """# On a GPU

Written by `python -m benchmarks.gpu` on {device} in {seconds:.0f} s. All sides take turns on the same card, and a
ratio is taken round by round: median and, in brackets, quartiles.

"""


@dataclass(frozen=True)
class Card:
    """Where everything runs."""

    smoke: bool = False
    torch_python: str | None = None

    @property
    def device(self) -> str:
        """For PyTorch."""
        return "cpu" if self.smoke else "cuda"

    def ours(self, bench: Bench, name: str, function: str, told: dict[str, Any]) -> bool:
        """Start a side in JAX, which takes memory as it needs it, since it is not alone, and one card of several."""
        card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
        alone = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "CUDA_VISIBLE_DEVICES": card}
        environment = CPU if self.smoke else alone
        return bench.start(name, f"{JAX}:{function}", told, environment)

    def torch(self, bench: Bench, name: str, function: str, told: dict[str, Any]) -> bool:
        """Start a side in PyTorch."""
        return bench.start(name, f"{TORCH}:{function}", {"device": self.device} | told, python=self.torch_python)


def cases(card: Card) -> list[Case]:
    """In the order in which they run."""
    models = {"b": ("vit_base_patch16_224", 128), "l": ("vit_large_patch16_224", 64)}
    return [
        Case("gpu-parity", "Parity, ViT-B/16", PARITY_WORDS, partial(parity, card)),
        Case("gpu-attention", "Attention by itself", ATTENTION_WORDS, partial(attention, card)),
        Case("gpu-digits", "Training the digits", DIGITS_WORDS, partial(digits, card)),
        *(
            Case(f"gpu-{short}", f"ViT-{short.upper()}/16 in bfloat16", MODEL_WORDS, partial(model, card, name, batch))
            for short, (name, batch) in models.items()
        ),
    ]


PARITY_WORDS = """Relative L2 distance of logits from those of the same weights in float64 on a CPU, of JAX over
that of PyTorch: in float32, with products in TensorFloat-32, and in bfloat16."""
ATTENTION_WORDS = """All heads of a batch of 197 tokens in bfloat16, times of the others over those of cuDNN, padded to
198; backward includes forward. Heads and gradients agree before anything is timed."""
DIGITS_WORDS = """The preset `digits`, trained by the whole of `vitport train` on the card and on the CPU beside it:
accuracy on the test images."""
MODEL_WORDS = """Images per second, ours over timm under `torch.compile` with its fused attention; training in bfloat16
with float32 parameters and fused AdamW. MFU: operations of matrix products per second over the card's peak."""


def parity(card: Card, scale: Scale, say: Say) -> Outcome:
    """JAX and PyTorch, with and without TensorFloat-32, and in bfloat16."""
    kinds = ("float32", "TensorFloat-32", "bfloat16")
    told = {"subject": scale.subject("vit_base_patch16_224"), "batches": list(scale.batches(8))}
    with Bench(say) as bench:
        exact = told | {"library": "vit_torch", "dtype": "float64"}
        bench.start("float64", f"{TORCH}:inference", exact, python=card.torch_python)
        for tf32 in (False, True):
            name = "TensorFloat-32" if tf32 else "float32"
            card.ours(bench, f"JAX, {name}", "inference", told | {"tf32": tf32})
            card.torch(bench, f"PyTorch, {name}", "inference", told | {"library": "vit_torch", "tf32": tf32})
        card.ours(bench, "JAX, bfloat16", "inference", told | {"dtype": "bfloat16"})
        card.torch(bench, "PyTorch, bfloat16", "inference", told | {"library": "vit_torch", "dtype": "bfloat16"})
        for some, tolerance in ((kinds[:2], PARITY_TOLERANCE), (kinds[2:], TOLERANCE)):
            sides = [f"{framework}, {kind}" for framework in ("JAX", "PyTorch") for kind in some]
            bench.agree("float64", sides, tolerance)
    errors = {side: Measured(side, "relative", (distance,)) for side, distance in bench.distances.items()}
    comparisons = [
        Comparison(kind, errors[f"JAX, {kind}"], errors[f"PyTorch, {kind}"], higher_is_better=False) for kind in kinds
    ]
    return Outcome(comparisons, left_out=bench.left_out, facts=bench.facts)


def attention(card: Card, scale: Scale, say: Say) -> Outcome:
    """cuDNN, XLA, ours (explicit), and PyTorch."""
    shape = [2, 16, 2, 8] if card.smoke else [64, 197, 16, 64]
    with Bench(say) as bench:
        for name, implementation in (("cuDNN", "cudnn"), ("XLA", "xla"), (WRITTEN, "explicit")):
            card.ours(bench, name, "attention", {"shape": shape, "implementation": implementation})
        card.torch(bench, "PyTorch's SDPA", "attention", {"shape": shape})
        names = list(bench.workers)
        bench.agree(names[0], names[1:], TOLERANCE)
        comparisons = []
        for part in ("forward", "backward"):
            found = alternate([bench.turn(name, part) for name in names], scale.pace)
            first, *others = (Measured(name, "s", tuple(sample.seconds for sample in found[name])) for name in names)
            comparisons += [Comparison(f"{part}, {other.name}", other, first) for other in others]
        return Outcome.of(bench, comparisons)


def digits(card: Card, scale: Scale, say: Say) -> Outcome:
    """The accuracy that a run reaches on the card, and on the CPU beside it."""
    told = {"epochs": 3} if scale.small else {}  # the schedule warms up for more than two
    with Bench(say) as bench:
        card.ours(bench, "card", "digits", told)
        bench.start("CPU", f"{JAX}:digits", told, CPU)
        alternate([bench.turn(name, "run", fixed=True) for name in bench.workers], Pace(rounds=1))
        found = {name: float(worker.answers()["accuracy"][0]) for name, worker in bench.workers.items()}
        if not scale.small and not found["card"] >= LEARNT:
            raise RuntimeError(f"the digits are read with {found['card']:.1%}, and the preset reaches 97 %.")
        measured = {name: Measured(name, "", (accuracy,)) for name, accuracy in found.items()}
        return Outcome.of(bench, [Comparison("accuracy", measured["card"], measured["CPU"])])


def model(card: Card, name: str, batch: int, scale: Scale, say: Say) -> Outcome:
    """Inference, then training."""
    comparisons: list[Comparison] = []
    distances: dict[str, float] = {}
    config = Subject(**scale.subject(name)).config
    rows = scale.batches(batch)[0]
    told = {"subject": scale.subject(name), "dtype": "bfloat16"}
    library = {"library": "timm", "compiled": not card.smoke}
    for kind, function, more, operations in (
        ("inference", "inference", {"batches": [rows]}, forward_flops(config)),
        ("training", "train", {"batch": rows}, 3 * forward_flops(config)),
    ):
        part = "step" if function == "train" else str(rows)
        with Bench(say) as bench:
            for side, by in ((FUSED, "fused" if card.smoke else "cudnn"), (EXPLICIT, "explicit")):
                card.ours(bench, side, function, told | more | {"attention": by})
            card.torch(bench, TIMM, function, told | more | library)
            ours = next(iter(bench.workers))
            bench.agree(ours, [side for side in bench.workers if side != ours], TOLERANCE)
            found = alternate([bench.turn(side, part) for side in bench.workers], scale.pace)
        speeds = {side: speed(side, samples, rows) for side, samples in found.items()}
        if TIMM in speeds:
            sides = [side for side in speeds if side != TIMM]
            comparisons += [Comparison(f"{kind}, {side}", speeds[side], speeds[TIMM]) for side in sides]
        comparisons += utilisation(kind, speeds, operations, bench.facts[ours]["peak"])
        distances |= {f"{kind}, {side}": distance for side, distance in bench.distances.items()}
    return Outcome(comparisons, (), distances, bench.left_out, bench.facts)


def speed(name: str, samples: Sequence[Sample], batch: int) -> Measured:
    """Images per second of each round."""
    return Measured(name, "images/s", tuple(batch / sample.seconds for sample in samples))


def utilisation(kind: str, speeds: dict[str, Measured], operations: float, peak: float | None) -> list[Comparison]:
    """Of every side, where the card's peak is known.

    Args:
        kind: inference or training.
        speeds: images per second.
        operations: of matrix products, for an image.
        peak: operations per second.
    """
    if peak is None:
        return []
    result = []
    for name, found in speeds.items():
        achieved = Measured(name, "GFLOP/s", tuple(value * operations / 1e9 for value in found.values))
        most = Measured("peak", "GFLOP/s", (peak / 1e9,) * len(found.values))
        result.append(Comparison(f"MFU, {kind}, {name}", achieved, most))
    return result


def main(
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...")] = (),
    *,
    smoke: bool = False,
    torch_python: Path | None = None,
    results: Path | None = None,
    docs: Path = DOCS,
) -> int:
    """Check and time everything on one GPU.

    Args:
        names: gpu-parity, gpu-attention, gpu-digits, gpu-b or gpu-l; all of them where none is given.
        smoke: On a CPU, at sizes that measure nothing, and nothing is kept.
        torch_python: Interpreter of another environment for PyTorch and timm, where one cannot hold both CUDA builds.
        results: JSON file for the results.
        docs: Folder for gpu.md.

    Returns:
        0; 1 if a case failed.
    """
    card = Card(smoke, None if torch_python is None else str(torch_python))
    wanted = chosen(names, {case.name: case for case in cases(card)})
    device = "a CPU, to see whether everything runs" if smoke else gpu()
    scale = Scale(Pace(rounds=1, seconds=0.0), small=True) if smoke else Scale(Pace(rounds=9, budget=10.0))
    start = time.perf_counter()
    found: dict[Case, Result] = {}
    failed = False
    for case in wanted:
        try:
            found[case] = measure(case, scale)
        except RuntimeError as error:  # a side that breaks on this card: the others are measured all the same
            failed = True
            say(f"{case.name} failed: {error}")
    head = HEAD.format(device=device, seconds=time.perf_counter() - start)
    named = {case.name: result for case, result in found.items()}
    text = head + "\n".join([*(section(case, result) for case, result in found.items()), machines(named)])
    say(text)
    if not smoke:
        (docs / "gpu.md").write_text(text, encoding="utf-8")
    if results is not None:
        write_results(results, named)
    return int(failed)


def gpu() -> str:
    """The card's name, asked in a process of its own, which gives its memory back.

    Raises:
        VitportError: if JAX sees none.
    """
    with Bench(lambda text: None) as bench:
        bench.start("card", f"{JAX}:attention", {"shape": [1, 8, 1, 8], "implementation": "xla"})
        facts = bench.facts["card"]
    if facts["platform"] != "gpu":
        raise VitportError(f"JAX sees no GPU here, but {facts['device']}: install jax[cuda13], or give --smoke.")
    return str(facts["device"])


if __name__ == "__main__":
    sys.exit(run(main, "benchmarks.gpu"))
