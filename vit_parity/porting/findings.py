"""What a comparison of two models found, in words and as rows of a report."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from vit_parity.bound import relative
from vit_parity.capture import Capture, headings
from vit_parity.comparison import Comparison, Row
from vit_parity.measure import measure
from vit_parity.porting.pairs import Pair, both_names
from vit_parity.porting.stages import ROOT, Key
from vit_parity.ulp import measure_ulps, roundoff

if TYPE_CHECKING:
    from vit_parity.porting.gradient_findings import Gradients

RowT = TypeVar("RowT", bound="PortedRow")
StageVerdict = Literal["rounding", "divergence", "amplified", "unknown"]
"""Rounding explains the difference; the stage itself is wrong; it is right, and its input was wrong; it comes behind a
fault, and could not be judged by itself."""
Shown = Literal["output", "input", "first", "precision"]
"""Where a fault shows: in what a stage makes of A's own input; in what reaches the stage; that it is the first one
apart, where no stage can be judged by itself; or as rounding of a coarser dtype, since in float64 nothing is wrong."""
_SHOWN = 14
"""Rows of a printed table before it is cut."""


@dataclass(frozen=True)
class PortedRow(Row):
    """One pair of stages; B's arrays in A's axes."""

    counterpart: str = ""
    """B's name of it."""
    alone: float | None = None
    """Relative L2 distance of B's stage from A's on A's own input; ``None`` where it could not be run so."""
    alone_limit: float = 0.0
    """The largest that rounding explains."""
    judged: StageVerdict = "rounding"

    @property
    def verdict_in_words(self) -> str:
        """As tables and reports show it."""
        return self.judged

    @property
    def title(self) -> str:
        """Its name in a table."""
        return self.name


@dataclass(frozen=True)
class Fault:
    """A place where B computes something else."""

    stage: str
    """A's name of it."""
    counterpart: str
    """B's."""
    shown: Shown
    error: float
    """Relative L2 distance."""
    limit: float
    """The largest that rounding explains."""
    key: Key
    """A's array that shows it."""
    key_b: Key
    """B's."""
    causes: tuple[str, ...] = ()
    """What B does instead; each explains the difference down to rounding. Empty if nothing known does."""
    unnamed: str = ""
    """Why there are none."""

    @property
    def sentence(self) -> str:
        """In words."""
        name = both_names(self.stage, self.counterpart)
        far = f"{self.error:.1e}, where rounding explains {self.limit:.1e}"
        told = {
            "output": f"{name} computes something else on A's own input ({far})",
            "input": f"{name} is given something else, though all before it is right ({far})",
            "first": f"{name} is the first stage apart ({far})",
            "precision": f"{name} agrees in float64, but is further off as it runs than its dtype explains ({far})",
        }[self.shown]
        if self.causes:
            return f"{told}: B {', or '.join(self.causes)}"
        return f"{told}; {self.unnamed}" if self.unnamed else told

    def because(self, causes: tuple[str, ...], unnamed: str) -> Fault:
        """The same with its causes, or why there are none."""
        return dataclasses.replace(self, causes=causes, unnamed="" if causes else unnamed)

    def shows(self, other: Fault) -> bool:
        """Whether this one is another sign of the same code: that of the module round both."""
        if other.shown != "input":
            return self.key == other.key and self.shown == other.shown
        around = owner(other.counterpart)
        return self.counterpart == around or (self.shown == "input" and owner(self.counterpart) == around)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        kept = {name: value for name, value in dataclasses.asdict(self).items() if not name.startswith("key")}
        return kept | {"causes": list(self.causes), "sentence": self.sentence}


@dataclass(frozen=True)
class Porting:
    """Two models of any frameworks compared."""

    a: Capture
    b: Capture
    pairs: tuple[Pair, ...]
    rows: tuple[PortedRow, ...]
    """In A's order of computation."""
    faults: tuple[Fault, ...]
    """Empty if rounding explains every difference."""
    only_a: tuple[str, ...]
    """Stages of A that nothing of B was compared with."""
    only_b: tuple[str, ...]
    exact: bool
    """Whether both ran in float64 too, so that less than rounding in float32 was seen."""
    arrays: tuple[tuple[np.ndarray, np.ndarray], ...]
    """What A and B computed at each row, in A's axes and the dtypes of the runs."""
    gradients: Gradients | None = None
    """If they were asked for."""

    @property
    def equal(self) -> bool:
        """Whether rounding explains every difference, that of gradients too if they were asked for."""
        return self._computes_equally and (self.gradients is None or self.gradients.equal)

    @property
    def _computes_equally(self) -> bool:
        return not self.faults and all(row.judged == "rounding" for row in self.rows)

    @property
    def comparison(self) -> Comparison:
        """For :func:`vit_parity.report.write_report`."""
        back = self.gradients
        titles = [] if back is None else [dataclasses.replace(row, name=f"gradient: {row.title}") for row in back.rows]
        rows, arrays = (*self.rows, *titles), (*self.arrays, *(() if back is None else back.arrays))
        names = [row.name for row in rows]
        first, second = (dict(zip(names, side, strict=True)) for side in zip(*arrays, strict=True))
        a, b = (dataclasses.replace(run, activations=kept) for run, kept in ((self.a, first), (self.b, second)))
        return _Paired(a, b, rows, self.only_a, self.only_b)

    def write_report(self, path: str | Path) -> None:
        """Write one self-contained HTML file.

        Raises:
            VitportError: if it cannot be written.
        """
        from vit_parity.report import Extras, write_report

        told = [*self.faults, *(() if self.gradients is None else self.gradients.faults)]
        write_report(self.comparison, Path(path), Extras(explanations=told))  # pyright: ignore[reportArgumentType]

    @property
    def conclusion(self) -> str:
        """The result, a line for each fault; faults of one cause are told together."""
        together: dict[tuple[str, ...], list[Fault]] = {}
        for at, fault in enumerate(self.faults):
            together.setdefault(fault.causes or (str(at),), []).append(fault)
        lines = [f"Fault: {_told(faults)}." for faults in together.values()]
        if self._computes_equally:
            judged = "no stage differs by itself, in float64 either" if self.exact else "as far as float32 shows"
            lines = [f"Rounding explains every difference; {judged}."]
        return "\n".join([*lines, *([] if self.gradients is None else [self.gradients.conclusion])])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": 1,
            "equal": self.equal,
            "a": {"title": self.a.title, "facts": self.a.facts},
            "b": {"title": self.b.title, "facts": self.b.facts},
            "stages": [row.to_dict() for row in self.rows],
            "faults": [fault.to_dict() for fault in self.faults],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        } | ({} if self.gradients is None else {"gradients": self.gradients.to_dict()})

    def __str__(self) -> str:
        lines = [*headings(self.a, self.b), *_table("stage", self.rows)]
        if self.gradients is not None:
            lines += [f"Gradients of {self.gradients.loss}:", *_table("gradient", self.gradients.rows)]
        return "\n".join([*lines, self.conclusion])


def telling(rows: Sequence[RowT]) -> tuple[RowT, ...]:
    """All rows if they are few, else the first ones that are not rounding, and the last."""
    if len(rows) <= _SHOWN:
        return tuple(rows)
    off = [row for row in rows if row.judged != "rounding"]
    some = tuple(off or rows)[: _SHOWN - 1]
    return some if some[-1] is rows[-1] else (*some, rows[-1])


def _table(what: str, rows: Sequence[PortedRow]) -> list[str]:
    some = telling(rows)
    cells = [(f"{what} of A", f"{what} of B", "B against A", "rounding", "by itself", "")]
    cells += [
        (row.title, row.counterpart, f"{row.difference.relative:.1e}", f"{row.tolerance:.1e}",
         "" if row.alone is None else f"{row.alone:.1e}", row.judged)
        for row in some
    ]  # fmt: skip
    widths = [max(len(line[at]) for line in cells) for at in range(6)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [*lines, f"… {len(rows)} {what}s in all"] if len(some) < len(rows) else lines


class _Paired(Comparison):
    """Every stage is drawn."""

    def is_stage(self, row: Row) -> bool:
        """Every one."""
        return True


def ported_row(
    pair: Pair, x: np.ndarray, y: np.ndarray, tolerance: float, exact: np.ndarray | None, alone: float | None,
    limit: float, verdict: StageVerdict
) -> PortedRow:  # fmt: skip
    """The measures of one pair; both arrays in A's axes, in the dtypes that they were computed in."""
    difference = measure(y, x)
    gap = np.abs(x.astype(np.float64) - y.astype(np.float64))
    mean_square = float(np.sqrt((x.astype(np.float64) ** 2).mean()))
    finest = max(x.dtype, y.dtype, key=roundoff)
    errors = (None, None) if exact is None else (relative(x, exact), relative(y, exact))
    return PortedRow(
        pair.name, x.shape, difference, measure_ulps(y.astype(finest), x.astype(finest)),
        float((~(gap <= tolerance * mean_square)).mean()), tolerance, *errors,
        "rounding" if verdict == "rounding" else "apart",
        counterpart=pair.b + pair.of_b, alone=alone, alone_limit=limit, judged=verdict,
    )  # fmt: skip


def _told(faults: list[Fault]) -> str:
    """The first in full, and where the same is found again."""
    first, *others = faults
    if not others:
        return first.sentence
    names = ", ".join(fault.stage for fault in others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"{first.sentence}. The same at {names}{more}"


def owner(stage: str) -> str:
    """The module round a stage."""
    steps = re.search(r"(\[\d+\])*$", stage)
    above = stage[: steps.start() if steps else None].rpartition(".")[0]
    return (above or ROOT) + (steps.group() if steps and above else "")
