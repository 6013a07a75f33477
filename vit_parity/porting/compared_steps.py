"""Two training loops compared by their captures: which step parts first, and at which stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_parity.capture import Capture
from vit_parity.porting.compare import compared_captures, drafted
from vit_parity.porting.findings import PortedRow, Porting
from vit_parity.porting.kept_steps import GRADIENT, gradient_at, read
from vit_parity.porting.pairs import Pair, both_names
from vit_parity.porting.sides import sides_of
from vit_spec import VitportError

Loop = str | Path | Sequence[Capture]


@dataclass(frozen=True)
class ComparedStep:
    """One step of both loops."""

    step: int
    """Counted from 0."""
    stage: str
    """The first stage apart; where rounding explains all, the one that comes nearest to what rounding explains."""
    counterpart: str
    """B's name of it."""
    distance: float
    """Relative L2 distance of B from A there."""
    limit: float
    """The largest that rounding explains."""
    equal: bool
    """Whether rounding explains every difference of the step."""


@dataclass(frozen=True)
class ComparedSteps:
    """Two training loops compared."""

    steps: tuple[ComparedStep, ...]
    first: Porting | None
    """All stages of the first step that is apart."""

    @property
    def equal(self) -> bool:
        """Whether rounding explains every difference."""
        return self.first is None

    @property
    def conclusion(self) -> str:
        """The result in words."""
        apart = next((it for it in self.steps if not it.equal), None)
        if apart is None:
            return f"Rounding explains every difference of {len(self.steps)} steps."
        name = both_names(apart.stage, apart.counterpart)
        far = f"{apart.distance:.1e}, where rounding explains {apart.limit:.1e}"
        told = f"B parts at step {apart.step}, first at {name} ({far})."
        if apart is not self.steps[0]:
            told += (
                " All that is compared of the steps before agrees: look at the update between, with compare_optimizers"
            )
            seen = self.first is not None and any(row.name.startswith(GRADIENT) for row in self.first.rows)
            told += "." if seen else ", and at gradients, with capturing(…, gradients=True)."
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"schema": 1, "equal": self.equal, "steps": [dataclasses.asdict(it) for it in self.steps],
                "conclusion": self.conclusion}  # fmt: skip

    def __str__(self) -> str:
        lines = ["step  B against A  rounding  stage"]
        lines += [f"{it.step:>4}      {it.distance:.1e}   {it.limit:.1e}  {it.stage}" for it in self.steps]
        return "\n".join([*lines, self.conclusion])


def compare_steps(a: Loop, b: Loop, pairs: str | Path | Iterable[Pair | str] | None = None) -> ComparedSteps:
    """Compare what two training loops computed, step by step.

    >>> with vitport.capturing(torch_model, gradients=True) as theirs: ...
    >>> with vitport.capturing(flax_model, gradients=True) as mine: ...
    >>> print(vitport.compare_steps(theirs, mine))

    What rounding may amount to grows by as much with each update as it is in the first step.

    Args:
        a: the reference: what :func:`vit_parity.porting.capturing` yields, captures, or the folder that it wrote.
        b: what is compared with it.
        pairs: which stages belong together, as of :func:`vit_parity.porting.compare`; drafted from the first step.

    Raises:
        VitportError: if there is no step that both have, or nothing belongs together.
    """
    first, second = _numbered(a), _numbered(b)
    common = [step for step in first if step in second]
    if not common:
        raise VitportError("The two loops have no step in common: capture the same numbers of both.")
    rows: list[ComparedStep] = []
    chosen = pairs if pairs is None or isinstance(pairs, (str, Path)) else tuple(pairs)
    apart: Porting | None = None
    for at, step in enumerate(common):
        sides = sides_of(_read(first[step]), _read(second[step]), None, None)
        if chosen is None:
            chosen = _drafted(_read(first[step]), _read(second[step]))
        found = compared_captures(*sides, chosen, slack=step - common[0] + 1 if at else 1)
        rows.append(_row(step, found))
        if apart is None and not found.equal:
            apart = found
    return ComparedSteps(tuple(rows), apart)


def _drafted(a: Capture, b: Capture) -> list[Pair]:
    """By what stages return. What arrives at them on the way back goes with it."""
    pairs = list(drafted(*sides_of(_forward(a), _forward(b), None, None)).pairs)
    back = [dataclasses.replace(it, a=gradient_at(it.a), b=gradient_at(it.b)) for it in reversed(pairs)]
    return pairs + [it for it in back if it.a in a.activations and it.b in b.activations]


def _forward(of: Capture) -> Capture:
    kept = {name: array for name, array in of.activations.items() if not name.startswith(GRADIENT)}
    return dataclasses.replace(of, activations=kept)


def _numbered(loop: Loop) -> Mapping[int, Capture | Path]:
    """Number of a step → its capture."""
    if isinstance(loop, (str, Path)):
        files = sorted(Path(loop).glob("step_*.npz"))
        if not files:
            raise VitportError(f"{loop} holds no step_*.npz: give the folder that capturing(…, to=FOLDER) wrote.")
        return {int(path.stem.removeprefix("step_")): path for path in files}
    return {int(it.facts.get("step", at)): it for at, it in enumerate(loop)}


def _read(kept: Capture | Path) -> Capture:
    found = read(kept)
    if not isinstance(found, Capture):
        raise VitportError("Steps that were kept as digests are compared one by one: compare(theirs[0], mine[0]).")
    return found


def _row(step: int, found: Porting) -> ComparedStep:
    def beyond(row: PortedRow) -> float:
        far = row.difference.relative
        return far / row.tolerance if far == far else float("inf")  # NaN is furthest

    apart = next((row for row in found.rows if row.judged != "rounding"), None)
    row = apart or max(found.rows, key=beyond)
    return ComparedStep(step, row.name, row.counterpart, row.difference.relative, row.tolerance, apart is None)
