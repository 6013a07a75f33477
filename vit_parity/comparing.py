"""Two runs compared a stage at a time: what one stage needs is freed before the next is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vit_parity.bound import GrowingBounds, bounds_without_weights
from vit_parity.comparison import Comparison, Depth, Row, cut_otherwise, row_of
from vit_parity.flow import Flow
from vit_parity.measure import relative
from vit_parity.points import stages
from vit_parity.replay import ReplayedModel
from vit_parity.shelf import GIGABYTE, Shelf
from vit_spec import VitportError


@dataclass(frozen=True)
class Stage:
    """The activations of one stage, as long as it is the current one."""

    name: str
    a: Mapping[str, np.ndarray]
    b: Mapping[str, np.ndarray]
    exact: Mapping[str, np.ndarray]


class Comparing:
    """:func:`vit_parity.comparison.compare_captures` of runs that are still to be computed.

    Args:
        a: the reference.
        b: what is measured.
        truth: the float64 reference for both.
        model: the model, from which bounds on rounding are derived.
        others: the model in other dtypes, whose errors are measured beside.
        memory: bytes that the activations of both, of float64 and of what computes them may take at once; what does not
            fit lies in a temporary file. Weights and libraries come on top.

    Raises:
        VitportError: if the runs see different images.
    """

    def __init__(
        self,
        a: Flow,
        b: Flow,
        truth: Flow,
        model: ReplayedModel,
        others: Sequence[Flow] = (),
        *,
        memory: float = GIGABYTE,
    ) -> None:
        if a.images.shape != b.images.shape or not np.array_equal(a.images, b.images):
            raise VitportError(f"{a.title} and {b.title} ran on different images: capture both on the same input.")
        self._a, self._b, self._truth, self._model, self._others = a, b, truth, model, others
        self._memory = memory
        self._rows: list[Row] = []
        self._only: tuple[list[str], list[str]] = ([], [])
        self._bounds: dict[np.dtype, dict[str, float]] = {it.dtype: {} for it in (a, b, *others)}
        self._errors: list[dict[str, float]] = [{} for _ in others]
        self._outputs: list[dict[str, np.ndarray]] = [{}, {}, {}]

    def run(self, visit: Callable[[Stage], None] = lambda _: None) -> None:
        """Compute and measure stage after stage.

        Args:
            visit: is shown each stage when it has been measured; what it does not keep is freed then.

        Raises:
            VitportError: if a side cannot run, or a shape differs.
        """
        turns = [_Turns(it) for it in (self._a, self._b, *self._others)]
        growing = {dtype: GrowingBounds(self._model, dtype) for dtype in self._bounds}
        for name, exact in self._truth.stages():
            self._compute(name, exact, turns, growing, visit)

    def _compute(
        self,
        name: str,
        given: dict[str, np.ndarray],
        turns: Sequence[_Turns],
        growing: Mapping[np.dtype, GrowingBounds],
        visit: Callable[[Stage], None],
    ) -> None:
        shelf = Shelf(self._memory)
        exact = shelf.put(given)
        for dtype, allowed in self._bounds.items():
            allowed |= growing[dtype].of(name, exact)
        for turn, errors in zip(turns[2:], self._errors, strict=True):
            errors |= {at: relative(array, exact[at]) for at, array in turn.take(name).items() if at in exact}
        a, b = (shelf.put(turn.take(name)) for turn in turns[:2])
        self._measure(a, b, exact)
        if name == stages(self._model.config)[-1]:
            for kept, found in zip(self._outputs, (a, b, exact), strict=True):
                kept |= dict([list(found.items())[-1]] if found else [])
        visit(Stage(name, a, b, exact))

    def comparison(self) -> Comparison:
        """All rows, once every stage has run; of the captures no more than the models' outputs are kept.

        Raises:
            VitportError: if the runs have no activation in common.
        """
        if not self._rows:
            raise VitportError(f"{self._a.title} and {self._b.title} have no activation in common: capture both again.")
        a, b, truth = (it.kept(out) for it, out in zip((self._a, self._b, self._truth), self._outputs, strict=True))
        return Comparison(a, b, tuple(self._rows), tuple(self._only[0]), tuple(self._only[1]), truth)

    def depths(self) -> tuple[Depth, ...]:
        """Of the other dtypes."""
        return tuple(
            Depth(it.dtype, errors, self._bounds[it.dtype])
            for it, errors in zip(self._others, self._errors, strict=True)
        )

    def _measure(
        self, a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]
    ) -> None:
        common = [name for name in a if name in b and not cut_otherwise(name, a, b)]
        for side, found in zip(self._only, (a, b), strict=True):
            side.extend(name for name in found if name not in common)
        allowed_a, allowed_b = (self._allowed(it.dtype, found) for it, found in ((self._a, a), (self._b, b)))
        for name in common:
            sides = (self._a.title, a[name]), (self._b.title, b[name])
            self._rows.append(row_of(name, *sides, exact.get(name), allowed_a[name], allowed_b[name]))

    def _allowed(self, dtype: np.dtype, found: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """Activations that our model does not have are held to the bound without weights."""
        known = self._bounds[dtype]
        rest = {name: array for name, array in found.items() if name not in known}
        return known | (bounds_without_weights(rest, dtype) if rest else {})


class _Turns:
    """A flow that is asked for one stage after the other, and need not have every one."""

    def __init__(self, flow: Flow) -> None:
        self._stages = flow.stages()
        self._ready = {} if flow.done is None else dict(self._stages)

    def take(self, stage: str) -> dict[str, np.ndarray]:
        """The activations of a stage; those of runs that compute it now come in the order of stages."""
        if not self._ready and (following := next(self._stages, None)) is not None:
            self._ready[following[0]] = following[1]
        return self._ready.pop(stage, {})
