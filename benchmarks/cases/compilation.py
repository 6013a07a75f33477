"""The first training step of a large model, compilation and all."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternate import Bench, Say, Turn, alternate, seconds
from benchmarks.cases.case import CPU, Case, Outcome, Scale
from benchmarks.cases.training import JAX, TORCH
from benchmarks.measure import Comparison, Measured
from benchmarks.process import Fresh, Worker

MODEL = "vit_large_patch16_224"
ROUNDS = 3
TOLERANCE = 2e-5
"""Relative distance of the first loss, before any step: that of logits."""
WORDS = """The first training step of ViT-L/16 at batch 1, float32, each in a process of its own, from the call to the
loss: tracing, compiling and one step; building the model is not counted. Ours with the blocks unrolled and as one scan,
beside timm under `torch.compile`. Second start: the same with the compilation cache that the first one filled
(`--compilation-cache`; TorchInductor's own cache beside it)."""


def case() -> Case:
    """The only one of its kind."""
    return Case("compile", "Compilation, ViT-L/16 training step", WORDS, run)


class Starts:
    """Pairs of a first and a second start, which share a cache that no other pair has.

    Args:
        name: of the side.
        folder: for the caches.
        target: ``MODULE:FUNCTION`` that builds the side.
        told: its arguments.
        environment: from the cache's folder.
    """

    def __init__(
        self, name: str, folder: Path, target: str, told: dict[str, Any], environment: Callable[[Path], dict[str, str]]
    ) -> None:
        self.name, self.target, self.told = name, target, told
        self._folder, self._environment = folder, environment
        self._pairs = 0
        self.answers: dict[str, np.ndarray] = {}

    def turns(self) -> list[Turn]:
        """The first start, then the second."""
        first, second = Fresh(self._first, self.answers), Fresh(self._second, self.answers)
        return [Turn(self.name, first, "step", fixed=True), Turn(second_of(self.name), second, "step", fixed=True)]

    def _first(self) -> Worker:
        self._pairs += 1
        return self._second()

    def _second(self) -> Worker:
        return Worker(self.target, self.told, self._environment(self._folder / f"{self.name}-{self._pairs}"))


def second_of(name: str) -> str:
    """The name of a second start."""
    return f"{name} second start"


def run(scale: Scale, say: Say) -> Outcome:
    """All three, first and second start."""
    told = {"subject": scale.subject(MODEL), "batch": 1, "losses": 1}
    torch = told | {"library": "timm", "compiled": True}
    with tempfile.TemporaryDirectory() as folder, Bench(say) as bench:
        sides = [
            Starts("unrolled", Path(folder), JAX, told, _jax_cache),
            Starts("scan", Path(folder), JAX, told | {"scan": True}, _jax_cache),
        ]
        tiny = {"subject": {"model": MODEL, "changes": {"depth": 1, "image_size": 32}}}
        if bench.start("torch.compile", TORCH, torch | tiny):  # whether it can be built here
            sides.append(Starts("torch.compile", Path(folder), TORCH, torch, _torch_cache))
            bench.workers["torch.compile"].close()
        pace = dataclasses.replace(scale.pace, rounds=min(ROUNDS, scale.pace.rounds))
        found = alternate([turn for side in sides for turn in side.turns()], pace)
        for side in sides[1:]:
            bench.held(side.name, sides[0].answers, side.answers, TOLERANCE)
        return Outcome.of(bench, _comparisons({name: seconds(name, samples) for name, samples in found.items()}))


def _comparisons(times: dict[str, Measured]) -> list[Comparison]:
    scan, unrolled = times["scan"], times["unrolled"]
    result = [Comparison("scan, unrolled", scan, unrolled, higher_is_better=False)]
    if "torch.compile" in times:
        other = times["torch.compile"]
        result += [Comparison(f"{side.name}, torch.compile", side, other, False) for side in (scan, unrolled)]
    for first in (scan, unrolled, *(times[name] for name in ("torch.compile",) if name in times)):
        name = second_of(first.name) if first.name != "torch.compile" else "torch.compile, started again"
        result.append(Comparison(name, first, times[second_of(first.name)]))
    return result


def _jax_cache(folder: Path) -> dict[str, str]:
    return {**CPU, "JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}


def _torch_cache(folder: Path) -> dict[str, str]:
    return {"TORCHINDUCTOR_CACHE_DIR": str(folder)}
