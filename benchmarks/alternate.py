"""Sides that take turns: A B C A B C …, so that a temporary slowdown of the machine affects all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from benchmarks.measure import Measured
from benchmarks.process import Runner, Sample, Worker
from benchmarks.side import UnavailableError

Say = Callable[[str], None]
GROUP = 2
"""Sides beside ours and its twin. More would hold too much memory at once: with seven training steps of ViT-S alive on
a machine of 24 GiB, the last ones found no huge pages, and took up to twice the time that they take by themselves."""


@dataclass(frozen=True)
class Pace:
    """How much is measured."""

    rounds: int = 7
    """At most."""
    least: int = 4
    """Rounds that are measured however long they take."""
    seconds: float = 0.25
    """Shorter runs are repeated within a turn until it takes about this long."""
    budget: float = 40.0
    """Seconds after which only ``least`` rounds are measured."""

    def count(self, seconds: float) -> int:
        """Runs in a turn, if one takes this long."""
        return max(1, min(1000, math.ceil(self.seconds / seconds)))

    def rounds_of(self, seconds: float) -> int:
        """Rounds, if one takes this long."""
        return max(min(self.least, self.rounds), min(self.rounds, int(self.budget / seconds)))


@dataclass(frozen=True)
class Turn:
    """What is measured once in every round."""

    name: str
    runner: Runner
    part: str = ""
    fixed: bool = False
    """Run it once in a turn, without warm-up."""


def alternate(turns: Sequence[Turn], pace: Pace) -> dict[str, list[Sample]]:
    """Warm up, choose how often each turn runs, and measure round by round; turn → one sample for each round."""
    counts: dict[str, int] = {}
    taken = 0.0
    for turn in (turn for turn in turns if not turn.fixed):
        first, second = (turn.runner.measure(turn.part, 1).seconds for _ in range(2))
        counts[turn.name] = pace.count(min(first, second))
        taken += counts[turn.name] * min(first, second)
    rounds = pace.rounds_of(taken) if len(counts) == len(turns) else pace.rounds
    found: dict[str, list[Sample]] = {turn.name: [] for turn in turns}
    for _ in range(rounds):
        for turn in turns:
            found[turn.name].append(turn.runner.measure(turn.part, counts.get(turn.name, 1)))
    return found


@dataclass(frozen=True)
class Build:
    """What a side is built from: see :class:`~benchmarks.process.Worker`."""

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def told(self, arguments: Mapping[str, Any]) -> Build:
        """With more arguments."""
        return Build(self.target, {**self.arguments, **arguments}, self.environment)


def seconds(name: str, samples: Sequence[Sample]) -> Measured:
    """The time of each round."""
    return Measured(name, "s", tuple(sample.seconds for sample in samples))


def peak(name: str, samples: Sequence[Sample]) -> Measured:
    """The memory of each round."""
    return Measured(name, "B", tuple(sample.peak for sample in samples))


@dataclass
class Bench:
    """The sides of one case; a context that ends their processes."""

    say: Say
    workers: dict[str, Worker] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Side → what it needs and this machine lacks."""
    distances: dict[str, float] = field(default_factory=dict)
    """Side → relative distance of its outputs from ours."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the facts about the sides remain."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    def start(
        self,
        name: str,
        target: str,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        python: str | None = None,
    ) -> bool:
        """Start a side and wait until it is built; returns whether it could be."""
        try:
            worker = Worker(target, arguments, environment, python)
        except UnavailableError as error:
            self.left_out[name] = str(error)
            self.say(f"  {name} is left out: {error}")
            return False
        self.workers[name] = worker
        self.facts[name] = {**worker.facts, "environment": dict(environment or {})}
        self.say(f"  {name}: built in {worker.ready:.1f} s")
        return True

    def build(self, name: str, how: Build) -> bool:
        """The same for a side that is written down."""
        return self.start(name, how.target, how.arguments, how.environment)

    def turn(self, name: str, part: str, fixed: bool = False) -> Turn:
        """A part of a started side."""
        return Turn(name, self.workers[name], part, fixed)

    def agree(self, ours: str, others: Sequence[str], tolerance: float) -> None:
        """Compare the other sides' outputs with ours; a side that computes something else is not timed."""
        expected = self.workers[ours].answers()
        for name in (other for other in others if other in self.workers):
            self.held(name, expected, self.workers[name].answers(), tolerance)

    def held(
        self, name: str, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], tolerance: float
    ) -> None:
        """The same for answers that are there.

        Raises:
            RuntimeError: if the relative L2 distance of any answer is above the tolerance, or no number.
        """
        if expected.keys() != found.keys():
            raise RuntimeError(f"{name} answers {sorted(found)}, ours {sorted(expected)}.")
        distance = max(
            float(np.linalg.norm(found[key] - expected[key]) / np.linalg.norm(expected[key])) for key in found
        )
        self.distances[name] = distance
        self.say(f"  {name}: answers within {distance:.1e} of ours")
        if not distance <= tolerance:
            raise RuntimeError(f"{name} answers {distance:.1e} away from ours, more than {tolerance:.0e}: not timed.")


def in_groups(
    bench: Bench, ours: str, sides: Mapping[str, Build], part: str, tolerance: float, pace: Pace
) -> Iterator[dict[str, list[Sample]]]:
    """Few sides at a time, each group in turns with a new process of ours and of its twin, and ended after it.

    Args:
        bench: gets the facts and distances.
        ours: the name of our side among the others.
        sides: by name; those that cannot be built are left out.
        part: what is timed.
        tolerance: of the answers' distances from ours.
        pace: of each group.

    Yields:
        Name → a sample a round, of the other sides of a group, ours, and ``twin_of(ours)``.
    """
    others = [name for name in sides if name != ours]
    for group in (others[at : at + GROUP] for at in range(0, len(others), GROUP)):
        there = [name for name in group if bench.build(name, sides[name])]
        if there:
            # Ours come last, to what memory the others have left.
            for name in (ours, twin_of(ours)):
                bench.build(name, sides[ours])
            bench.agree(ours, there, tolerance)
            yield alternate([bench.turn(name, part) for name in (ours, *there, twin_of(ours))], pace)
        bench.close()


def twin_of(name: str) -> str:
    """The name of the other process that runs the same code."""
    return f"{name} again"
