"""Which gradients are rounding, which are wrong by themselves, and which only follow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vit_parity.bound import MARGIN
from vit_parity.measure import ratio
from vit_parity.porting.aligned import Aligned
from vit_parity.porting.findings import Fault, StageVerdict, owner, ported_row
from vit_parity.porting.gradient_findings import GradientFault, GradientOf, GradientRow, titled
from vit_parity.porting.pairs import Pair
from vit_parity.porting.stages import ROOT, Backward, Key

_DOUBLE = 2.0**-53
Judged = tuple[list[tuple[GradientRow, tuple[np.ndarray, np.ndarray]]], list[GradientFault]]


@dataclass(frozen=True)
class Item:
    """A gradient that both sides have."""

    of: GradientOf
    a: str
    """A's stage or parameter."""
    b: str
    stage: str
    """B's stage that computes it."""
    place: float
    """In A's order of computation."""
    of_a: Callable[[Backward], np.ndarray | None]
    of_b: Callable[[Backward], np.ndarray | None]
    """In A's axes."""


@dataclass(frozen=True)
class Runs:
    """Both models, there and back."""

    plain_a: Backward
    plain_b: Backward
    best_a: Backward
    """In float64, where A can."""
    best_b: Backward
    alone: Backward | None
    """B with A's values and gradients in place."""
    moved: Backward | None
    """A with everything moved by a unit roundoff."""
    moved_alone: Backward | None
    """The same with its own values and gradients in place."""
    exact: bool
    """Whether both ran in float64."""
    doubled: Callable[[float], Backward] | None
    """``alone`` with twice the gradients behind a place; ``None`` where not all of A's gradients could be put in."""

    def independent(self, item: Item, place: float) -> bool:
        """Whether a gradient of B's is made of nothing that comes from behind a place."""
        if self.doubled is None or self.alone is None:
            return False
        before, after = item.of_b(self.alone), item.of_b(self.doubled(place))
        return before is not None and after is not None and _gap(after, before) <= 1e-9 * _norm(before)


def judged(items: Sequence[Item], runs: Runs, limits: tuple[float, float], regions: Regions) -> Judged:
    """A row for each gradient, with A's and B's array, and the faults.

    Args:
        items: in the order of the way back.
        runs: of both.
        limits: the unit roundoff, and the growth of rounding in a sum.
        regions: of B's code.
    """
    rows: list[tuple[GradientRow, tuple[np.ndarray, np.ndarray]]] = []
    faults: dict[tuple[str, str], GradientFault] = {}
    told: dict[tuple[str, str], str] = {}  # the stage that each was found at
    sizes = _Sizes(items, runs, *limits)
    coarse_told = regions.coarse
    for item in items:
        x, y = item.of_a(runs.best_a), item.of_b(runs.best_b)
        plain_x, plain_y = item.of_a(runs.plain_a), item.of_b(runs.plain_b)
        if x is None or y is None or plain_x is None or plain_y is None:
            continue
        z = None if runs.alone is None else item.of_b(runs.alone)
        size, together, by_itself = _norm(x), sizes.together(item, x), sizes.alone(item, x)
        far_off = _gap(plain_y, plain_x)
        apart = runs.exact and not _gap(y, x) <= sizes.exact(item, x)
        far = apart or not far_off <= together
        error = None if z is None else _gap(z, x)
        region = regions.of(item)
        place = (region, f"{item.stage}>" if item.of == "output" else item.stage if region == ROOT else "")
        verdict: StageVerdict = "rounding"
        fault: GradientFault | None = None
        measured = (ratio(far_off, size), ratio(together, size))
        if error is not None and not error <= by_itself:
            if place in faults and item.stage in (told[place], region):
                also = (*faults[place].also, titled(item.a, item.of))
                faults[place] = dataclasses.replace(faults[place], also=also)
                verdict = "divergence"
            elif place in faults or not regions.may_accuse(region, lambda at, it=item: runs.independent(it, at)):
                verdict = "unknown"
            else:
                measured = (ratio(error, size), ratio(by_itself, size))
                verdict, fault = "divergence", GradientFault(item.a, item.b, item.of, *measured, "alone")
            if item.of != "parameter":
                regions.doubt(region, item.place)
        elif far and runs.exact and not apart:  # of all that only the coarser run shows, the first is told
            verdict = "amplified" if coarse_told else "divergence"
            fault = None if coarse_told else GradientFault(item.a, item.b, item.of, *measured, "precision")
            coarse_told = True
        elif far and error is not None:
            verdict = "amplified"
        elif far and not faults and regions.may_accuse(region, lambda _: False):
            verdict, fault = "divergence", GradientFault(item.a, item.b, item.of, *measured, "first")
        elif far:
            verdict = "unknown"
        if fault is not None:
            faults[place], told[place] = fault, item.stage
        row = ported_row(Pair(item.a, item.b), plain_x, plain_y, ratio(together, size), x if runs.exact else None,
                         None if error is None else ratio(error, size), ratio(by_itself, size), verdict)  # fmt: skip
        measures = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
        rows.append((GradientRow(**measures, of=item.of), (plain_x, plain_y)))
    return rows, list(faults.values())


class _Sizes:
    """What rounding may come to, in the gradients' own unit.

    A gradient may be nothing but rounding, as that of the bias of keys. So besides a share of its own size it is
    granted what the largest gradients are rounded by.
    """

    def __init__(self, items: Sequence[Item], runs: Runs, u: float, growth: float) -> None:
        self._runs, self._u, self._growth = runs, u, growth
        self._largest: dict[bool, float] = {True: 0.0, False: 0.0}
        for item in items:
            x = item.of_a(runs.best_a)
            of_parameter = item.of == "parameter"
            self._largest[of_parameter] = max(self._largest[of_parameter], 0.0 if x is None else _norm(x))

    def together(self, item: Item, x: np.ndarray) -> float:
        """For both models as they run."""
        return self._share(item, x, self._runs.moved) * self._growth + self._noise(item, self._u)

    def exact(self, item: Item, x: np.ndarray) -> float:
        """In float64: only constants are rounded."""
        return self._share(item, x, self._runs.moved) + self._noise(item, _DOUBLE)

    def alone(self, item: Item, x: np.ndarray) -> float:
        """For one stage by itself."""
        exact = self._runs.exact
        share = self._share(item, x, self._runs.moved_alone)
        return share * (1.0 if exact else self._growth) + self._noise(item, _DOUBLE if exact else self._u)

    def _share(self, item: Item, x: np.ndarray, moved: Backward | None) -> float:
        other = None if moved is None else item.of_a(moved)
        return MARGIN * 2 * max(0.0 if other is None else _gap(other, x), self._u * _norm(x))

    def _noise(self, item: Item, u: float) -> float:
        return MARGIN * 2 * self._growth * u * self._largest[item.of == "parameter"]


class Regions:
    """Whose code computes a gradient, and whether it may be accused.

    Args:
        aligned: the stages of both.
        of_b: B, there and back.
        arriving: the slots of B that are given A's gradients.
        faults: of the forward pass.
    """

    def __init__(self, aligned: Aligned, of_b: Backward, arriving: Mapping[Key, np.ndarray],
                 faults: Sequence[Fault]) -> None:  # fmt: skip
        self._aligned = aligned
        self._known = {stage for stage, slot in arriving if slot[0] == ">"}
        self._loose = {stage for stage, slot in of_b.gradients if slot[0] == "<" and (stage, slot) not in arriving}
        self.coarse = any(fault.shown == "precision" for fault in faults)
        """Whether the forward pass is coarser than its dtype already."""
        self._doubtful: dict[str, float] = {}
        """Code that is wrong, or computes from something wrong that A's gradients could not replace → the place."""
        self._nothing = any(fault.shown == "first" for fault in faults)
        for fault in faults:
            stage = fault.key_b[0]
            own = fault.shown == "output" and any(key[0] == stage and key[1][0] == "<" for key in aligned.b.values)
            if fault.shown in ("output", "input"):
                self.doubt(stage if own else self._around(stage))

    def of(self, item: Item) -> str:
        """A module of B, whose own code it is, or that of its parts that are not seen."""
        if item.of == "output":
            return self._around(item.stage)
        stage = item.stage
        while stage != ROOT and stage not in self._known:
            stage = owner(stage)
        return stage

    def _around(self, stage: str) -> str:
        """The module round a stage; tags stand in no module."""
        while stage != ROOT:
            stage = owner(stage)
            if stage in self._aligned.b.kinds:
                return stage
        return ROOT

    def doubt(self, region: str, place: float = -math.inf) -> None:
        """What is wrong there reaches what is before it, as far as A's gradients do not stand between."""
        self._doubtful[region] = min(place, self._doubtful.get(region, math.inf))
        while region != ROOT and (region not in self._known or region in self._loose):
            region = self._around(region)
            self._doubtful[region] = min(place, self._doubtful.get(region, math.inf))

    def may_accuse(self, region: str, independent: Callable[[float], bool]) -> bool:
        """Whether all that it computes from is A's, or at least nothing that is wrong.

        Args:
            region: the code.
            independent: whether the gradient is made of nothing from behind a place.
        """
        while not self._nothing:
            if region in self._doubtful:
                place = self._doubtful[region]
                if not (math.isfinite(place) and independent(place)):
                    return False
            if region == ROOT or region in self._known:
                return True
            region = self._around(region)  # which gives it a gradient that is not A's
        return False


def _norm(x: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(x, np.float64)))


def _gap(y: np.ndarray, x: np.ndarray) -> float:
    """L2 distance; what is NaN in both is equal."""
    gap = np.asarray(y, np.float64) - np.asarray(x, np.float64)
    gap[np.isnan(y) & np.isnan(x)] = 0.0
    return float(np.linalg.norm(gap))
