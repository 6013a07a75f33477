"""The first training step of a large model, compilation included."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternate import Bench, Say, Turn, alternate, seconds
from benchmarks.cases.case import CPU, Case, Outcome, Scale
from benchmarks.cases.training import JAX, TORCH
from benchmarks.measure import Comparison, Measured
from benchmarks.process import Fresh, Sample, Worker
from benchmarks.side import BEGUN

MODEL = "vit_large_patch16_224"
ROUNDS = 2
TOLERANCE = 2e-5
"""Relative distance of the first loss, before any step: that of logits."""
WORDS = """The first training step of ViT-L/16 at batch 1, float32, each in its own process, from the call to the loss:
tracing, compiling and one step, without building the model. Ours with unrolled blocks and with one scan, beside timm
under `torch.compile`. The second start uses the compilation cache that the first one filled (`--compilation-cache`). No
cache shortens the step itself, so ours is also timed until the step runs, which is when JAX's call returns."""


def case() -> Case:
    """The compilation case."""
    return Case("compile", "Compilation, ViT-L/16 training step", WORDS, run)


class Starts:
    """First starts with an empty cache each, and second ones with what the latest first one left there.

    Args:
        name: of the side.
        folder: for the caches.
        target: ``MODULE:FUNCTION`` that builds the side.
        told: its arguments.
        environment: from the cache's folder.
        begun: a part that gives the seconds until the first step runs.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        target: str,
        told: dict[str, Any],
        environment: Callable[[Path], dict[str, str]],
        begun: str | None = None,
    ) -> None:
        self.name, self.target, self.told, self.begun = name, target, told, begun
        self._folder, self._environment = folder, environment
        self._number = 0
        self.answers: dict[str, np.ndarray] = {}

    def first(self) -> Turn:
        """With an empty cache."""
        return Turn(self.name, Fresh(self._first, self.answers, self.begun), "step", fixed=True)

    def second(self) -> Turn:
        """With a full one."""
        return Turn(second_of(self.name), Fresh(self._start, self.answers, self.begun), "step", fixed=True)

    def _first(self) -> Worker:
        self._number += 1
        return self._start()

    def _start(self) -> Worker:
        return Worker(self.target, self.told, self._environment(self._folder / f"{self.name}-{self._number}"))


def second_of(name: str) -> str:
    """The name of a second start."""
    return f"{name} second start"


def run(scale: Scale, say: Say) -> Outcome:
    """Unrolled, scan, and torch.compile if it is there."""
    told = {"subject": scale.subject(MODEL), "batch": 1, "losses": 1}
    torch = told | {"library": "timm", "compiled": True}
    with tempfile.TemporaryDirectory() as folder, Bench(say) as bench:
        sides = [
            Starts("unrolled", Path(folder), JAX, told, _jax_cache, BEGUN),
            Starts("scan", Path(folder), JAX, told | {"scan": True}, _jax_cache, BEGUN),
        ]
        tiny = {"subject": {"model": MODEL, "changes": {"depth": 1, "image_size": 32}}}
        if bench.start("torch.compile", TORCH, torch | tiny):  # whether it can be built here
            sides.append(Starts("torch.compile", Path(folder), TORCH, torch, _torch_cache))
            bench.workers["torch.compile"].close()
        pace = dataclasses.replace(scale.pace, rounds=min(ROUNDS, scale.pace.rounds))
        turns = [turn for side in sides[:2] for turn in (side.first(), side.second())]
        found = alternate([*turns, *(side.first() for side in sides[2:])], pace)
        for side in sides[1:]:
            bench.held(side.name, sides[0].answers, side.answers, TOLERANCE)
        return Outcome.of(bench, comparisons(found))


def comparisons(found: Mapping[str, Sequence[Sample]]) -> list[Comparison]:
    """From the first and second starts of every side."""
    times = {name: seconds(name, samples) for name, samples in found.items()}
    scan, unrolled = times["scan"], times["unrolled"]
    running = [_until_it_runs(name, found[name]) for name in ("scan", "unrolled")]
    result = [
        Comparison("scan, unrolled", scan, unrolled, higher_is_better=False),
        Comparison("scan, unrolled, until the step runs", *running, higher_is_better=False),
    ]
    if other := times.get("torch.compile"):
        result += [
            Comparison(f"{side.name}, torch.compile", side, other, higher_is_better=False) for side in (scan, unrolled)
        ]
    for first in (scan, unrolled):
        second = times[second_of(first.name)]
        result.append(Comparison(second.name, first, second))
        start, again = (_until_it_runs(name, found[name]) for name in (first.name, second.name))
        result.append(Comparison(f"{second.name}, until the step runs", start, again))
    return result


def _until_it_runs(name: str, samples: Sequence[Sample]) -> Measured:
    return Measured(f"{name}, until the step runs", "s", tuple(sample.begun for sample in samples))


def _jax_cache(folder: Path) -> dict[str, str]:
    return {**CPU, "JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}


def _torch_cache(folder: Path) -> dict[str, str]:
    return {"TORCHINDUCTOR_CACHE_DIR": str(folder)}
