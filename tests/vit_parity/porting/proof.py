"""Every mistake of every pair, planted and looked for: ``python -m tests.vit_parity.porting.proof [PAIR …]``.

The last lines are a table of all pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from tests.vit_parity.porting.kinds import planted
from tests.vit_parity.porting.pairs import NAMES, pair
from tests.vit_parity.porting.pairs.pair import Planted, PortedModel
from vit_parity.porting import Porting


@dataclass
class Tally:
    """What became of planted mistakes."""

    name: str
    planted: int = 0
    located: int = 0
    """At their layer, and nothing else accused."""
    named: int = 0
    wrong: list[str] = field(default_factory=list)
    """Named otherwise than they are."""
    lost: list[str] = field(default_factory=list)
    """Located elsewhere, or not at all."""
    small: float = 1.0
    """The smallest distance of an output that was found, relative."""

    def add(self, mistake: Planted, found: Porting) -> None:
        """Judge one."""
        self.planted += 1
        places = [fault.stage for fault in found.faults]
        told = {cause for fault in found.faults for cause in fault.causes}
        if places == [mistake.stage]:
            self.located += 1
            self.small = min(self.small, found.faults[0].error)
        else:
            self.lost.append(f"{self.name}: {mistake.name} at {mistake.stage} is found at {places or 'no stage'}")
        if told and mistake.cause not in told:
            self.wrong.append(f"{self.name}: {mistake.name} is called {sorted(told)}, not {mistake.cause}")
        self.named += mistake.cause in told


def tally(model: PortedModel, mistakes: Iterable[Planted]) -> Tally:
    """Plant each by itself."""
    found = Tally(model.name)
    for mistake in mistakes:
        found.add(mistake, model.compared(mistake.change))
    return found


def table(rows: Iterable[Tally]) -> str:
    """In Markdown."""
    rows = list(rows)
    lines = ["| pair | planted | at their layer | named | named wrongly |", "|---|---|---|---|---|"]
    lines += [f"| {it.name} | {it.planted} | {it.located} | {it.named} | {len(it.wrong)} |" for it in rows]
    counts = ((it.planted, it.located, it.named, len(it.wrong)) for it in rows)
    sums = [sum(column) for column in zip(*counts, strict=True)]
    return "\n".join([*lines, "| all | " + " | ".join(map(str, sums)) + " |"])


def main(names: list[str]) -> None:
    """Run the pairs that are named, or all."""
    torch.set_num_threads(1)
    rows = []
    for name in names or NAMES:
        model = pair(name)
        rows.append(tally(model, planted(model)))
        sys.stdout.write("\n".join([*rows[-1].lost, *rows[-1].wrong, ""]))
        sys.stdout.flush()
    sys.stdout.write(f"{table(rows)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
