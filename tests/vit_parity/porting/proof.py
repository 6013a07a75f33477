"""Every mistake of every pair, planted and looked for: ``python -m tests.vit_parity.porting.proof [--two] [PAIR …]``.

Prints the rows of a table of docs/reports/porting.md, and what is not as it should be. ``--two`` plants two at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tests.vit_parity.porting.kinds import planted
from tests.vit_parity.porting.pairs import pair
from tests.vit_parity.porting.pairs.pair import Planted, PortedModel
from tests.vit_parity.porting.tally import Tally, run
from vit_parity.porting import Porting

TWICE = 72
"""Draws of two mistakes for each pair of models: 504 in all."""
COLUMNS = ("planted", "at their layer", "named", "unseen, below rounding", "wrong")


def tally(model: PortedModel, mistakes: Iterable[Planted | Sequence[Planted]]) -> Tally:
    """Plant each by itself, or those of each sequence together."""
    found = Tally(model.name, named=0)
    for entry in mistakes:
        together = [entry] if isinstance(entry, Planted) else entry
        _judge(found, model, together, model.compared(*(it.change for it in together)))
    return found


def _judge(tally: Tally, model: PortedModel, mistakes: Sequence[Planted], found: Porting) -> None:
    """Count what was found of mistakes in one port, each at a layer of its own."""
    assert tally.named is not None
    together = " and ".join(it.name for it in mistakes)
    for mistake in mistakes:
        faults = [fault for fault in found.faults if fault.stage == mistake.stage]
        told = {cause for fault in faults for cause in fault.causes}
        tally.planted += 1
        tally.located += bool(faults)
        tally.named += mistake.cause in told
        if told and mistake.cause not in told:
            tally.wrong.append(f"{together}: {mistake.stage} is called {sorted(told)}, not {mistake.cause}")
        if not faults:
            size, rounding = model.moved(mistake.change), found.rows[-1].error_a or 0.0
            words = f"{together}: {mistake.stage} is not found; it moves the outputs by {size:.1e}, "
            (tally.unseen if size <= rounding else tally.lost).append(f"{words}rounding by {rounding:.1e}")
    places = {mistake.stage for mistake in mistakes}
    tally.wrong += [f"{together}: accused is {it.sentence}" for it in found.faults if it.stage not in places]


def two_at_a_time(model: PortedModel, count: int, seed: int) -> Iterator[tuple[Planted, Planted]]:
    """Random mistakes of a pair, always of two layers."""
    rng, known = np.random.default_rng(seed), list(planted(model))
    while count:
        first, second = (known[at] for at in rng.choice(len(known), 2, replace=False))
        if first.stage != second.stage:
            yield first, second
            count -= 1


def _tally_of(name: str, two: bool) -> Tally:
    model = pair(name)
    return tally(model, two_at_a_time(model, TWICE, 0) if two else planted(model))


if __name__ == "__main__":
    run(sys.argv[1:], COLUMNS, _tally_of)
