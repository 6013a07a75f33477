"""What becomes of planted mistakes, counted for each pair of models; and the program that goes through the pairs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from tests.vit_parity.porting.pairs import NAMES


@dataclass
class Tally:
    """What became of the mistakes planted in a pair."""

    name: str
    planted: int = 0
    located: int = 0
    """Found where they are."""
    named: int | None = None
    """With what was planted among the causes; ``None`` where causes have no names."""
    unseen: list[str] = field(default_factory=list)
    """Not found, and smaller than rounding."""
    lost: list[str] = field(default_factory=list)
    """Not found, and larger."""
    wrong: list[str] = field(default_factory=list)
    """Accused without a mistake, or named otherwise than it is."""

    @property
    def row(self) -> str:
        """Of a table in Markdown."""
        counts = (self.planted, self.located, self.named, len(self.unseen), len(self.wrong))
        return f"| {self.name} | " + " | ".join(str(count) for count in counts if count is not None) + " |"


def all_of(rows: Sequence[Tally]) -> Tally:
    """The sum."""
    named = [it.named for it in rows if it.named is not None]
    return Tally(
        "all", sum(it.planted for it in rows), sum(it.located for it in rows), sum(named) if named else None,
        [words for it in rows for words in it.unseen], [words for it in rows for words in it.lost],
        [words for it in rows for words in it.wrong],
    )  # fmt: skip


def run(given: Sequence[str], columns: Sequence[str], tally: Callable[[str, bool], Tally]) -> None:
    """Print a table of the pairs that the arguments name, or of all, and what is not as it should be.

    Args:
        given: names of pairs, and ``--two`` to plant two mistakes at a time.
        columns: titles behind the pair's name.
        tally: of a pair, with two at a time or not.
    """
    torch.set_num_threads(1)
    two = "--two" in given
    _say(f"| pair | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|")
    rows = []
    for name in [it for it in given if it != "--two"] or NAMES:
        rows.append(tally(name, two))
        _say(rows[-1].row)
        sys.stderr.write("".join(f"{it}\n" for it in [*rows[-1].lost, *rows[-1].wrong]))
    total = all_of(rows)
    _say(total.row, "", *total.unseen, *total.lost, *total.wrong, f"lost: {len(total.lost)}")


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
