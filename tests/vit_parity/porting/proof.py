"""Every mistake of every pair, planted and looked for: ``python -m tests.vit_parity.porting.proof [--two] [PAIR …]``.

Prints the rows of a table of docs/reports/porting.md, and what is not as it should be. ``--two`` plants two at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tests.vit_parity.porting.kinds import planted
from tests.vit_parity.porting.pairs import NAMES, pair
from tests.vit_parity.porting.pairs.pair import Planted, PortedModel
from vit_parity.porting import Porting

TWICE = 72
"""Draws of two mistakes for each pair of models: 504 in all."""
HEAD = ("| pair | planted | at their layer | named | unseen, below rounding | wrong |", "|---|---|---|---|---|---|")


@dataclass
class Tally:
    """What became of planted mistakes."""

    name: str
    planted: int = 0
    located: int = 0
    """At their layer."""
    named: int = 0
    unseen: list[str] = field(default_factory=list)
    """Not found, and smaller than what rounding does to the outputs."""
    lost: list[str] = field(default_factory=list)
    """Not found, and larger."""
    wrong: list[str] = field(default_factory=list)
    """Accused without a mistake, or named otherwise than it is."""
    smallest: float = np.inf
    """Of what was found: the relative L2 distance at its layer."""

    def add(self, model: PortedModel, mistakes: Sequence[Planted], found: Porting) -> None:
        """Judge what was found of mistakes in one port, each at a layer of its own."""
        together = " and ".join(it.name for it in mistakes)
        for mistake in mistakes:
            faults = [fault for fault in found.faults if fault.stage == mistake.stage]
            told = {cause for fault in faults for cause in fault.causes}
            self.planted += 1
            self.located += bool(faults)
            self.named += mistake.cause in told
            self.smallest = min([self.smallest, *(fault.error for fault in faults)])
            if told and mistake.cause not in told:
                self.wrong.append(f"{together}: {mistake.stage} is called {sorted(told)}, not {mistake.cause}")
            if not faults:
                size, rounding = model.moved(mistake.change), found.rows[-1].error_a or 0.0
                words = f"{together}: {mistake.stage} is not found; it moves the outputs by {size:.1e}, "
                (self.unseen if size <= rounding else self.lost).append(f"{words}rounding by {rounding:.1e}")
        places = {mistake.stage for mistake in mistakes}
        self.wrong += [f"{together}: accused is {it.sentence}" for it in found.faults if it.stage not in places]

    @property
    def row(self) -> str:
        """Of a table in Markdown."""
        counts = (self.planted, self.located, self.named, len(self.unseen), len(self.wrong))
        return f"| {self.name} | " + " | ".join(map(str, counts)) + " |"


def tally(model: PortedModel, mistakes: Iterable[Planted | Sequence[Planted]]) -> Tally:
    """Plant each by itself, or those of each sequence together."""
    found = Tally(model.name)
    for entry in mistakes:
        together = [entry] if isinstance(entry, Planted) else entry
        found.add(model, together, model.compared(*(it.change for it in together)))
    return found


def two_at_a_time(model: PortedModel, count: int, seed: int) -> Iterator[tuple[Planted, Planted]]:
    """Random mistakes of a pair, always of two layers."""
    rng, known = np.random.default_rng(seed), list(planted(model))
    while count:
        first, second = (known[at] for at in rng.choice(len(known), 2, replace=False))
        if first.stage != second.stage:
            yield first, second
            count -= 1


def all_of(rows: Sequence[Tally]) -> Tally:
    """The sum."""
    found = Tally("all")
    for it in rows:
        found.planted, found.located, found.named = (
            found.planted + it.planted, found.located + it.located, found.named + it.named)  # fmt: skip
        found.unseen, found.lost, found.wrong = found.unseen + it.unseen, found.lost + it.lost, found.wrong + it.wrong
        found.smallest = min(found.smallest, it.smallest)
    return found


def main(given: list[str]) -> None:
    """Run the pairs that are named, or all."""
    torch.set_num_threads(1)
    sys.stdout.write("\n".join([*HEAD, ""]))
    rows = []
    for name in [it for it in given if it != "--two"] or NAMES:
        model = pair(name)
        rows.append(tally(model, two_at_a_time(model, TWICE, 0) if "--two" in given else planted(model)))
        sys.stdout.write(f"{rows[-1].row}\n")
        sys.stdout.flush()
    total = all_of(rows)
    sys.stdout.write("\n".join([total.row, "", *total.unseen, *total.lost, *total.wrong, ""]))
    sys.stdout.write(f"lost: {len(total.lost)}; smallest found: {total.smallest:.1e}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
