"""Why a run is off: each layer replayed in float64 on the run's own inputs, under hypotheses until one fits.

A layer that agrees with the replay within its rounding bound is correct, whatever its input was. So causes are searched
only for layers that are off themselves, and a correct run is blamed for nothing. A hypothesis is accepted if it brings
the residual within the bound and to at most a quarter of what it was; all that do are reported.

The bound allows for sums that round once for each product, which real kernels do not. So a layer within it is looked at
more closely: where its residual is more than :data:`CLOSE` times what rounding each number once does, and a hypothesis
brings it below that and to at most a quarter, the hypothesis is accepted too. Rounding does not follow a hypothesis:
the last rounding of each number alone is as large as what one could take away. If none fits, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vit_parity.bound import bound_factor, bounds, least_bound
from vit_parity.capture import Capture
from vit_parity.hypotheses import Hypothesis, Origin, Scope, hypotheses
from vit_parity.measure import relative
from vit_parity.points import stages
from vit_parity.replay import ReplayedModel, replay, replay_each
from vit_parity.stagewise import captured_stages
from vit_parity.ulp import roundoff

CLOSE = 4.0
"""Times the effect of one rounding of each number: smaller faults cannot be told from rounding."""
_NEGLIGIBLE = 8.0
"""Roundoffs: a smaller residual is not looked at more closely."""
_MOST = 8
"""Causes that are searched in one stage."""


@dataclass(frozen=True)
class Explanation:
    """One cause, or a layer that is off and that no hypothesis explains."""

    run: str
    """Title of the run that is wrong."""
    layer: str
    """The first activation that shows it."""
    cause: str | None
    """In words that follow the run's name, or ``None``."""
    before: float
    """Relative L2 distance of the layer from its replay in the correct model."""
    after: float | None
    """The same under the hypothesis."""
    bound: float
    """The largest distance that rounding explains."""
    alternatives: tuple[str, ...] = ()
    """Other causes that fit within the bound as well, on this input."""
    stages: tuple[str, ...] = ()
    """The parts of the model in which it was found."""
    where: str = ""
    """The same in words, consecutive parts together."""

    @property
    def sentence(self) -> str:
        """The explanation in words."""
        if self.cause is None:
            off = f"{self.before:.1e} where rounding explains {self.bound:.1e}"
            return f"{self.run}: {self.layer} is off by {off}, and no hypothesis fits"
        told = f"{self.run} {self.cause} ({self.where}): {self.before:.1e} → {self.after:.1e} at {self.layer}"
        return f"{told}; or it {', or '.join(self.alternatives)}" if self.alternatives else told

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"sentence": self.sentence}


def explain(run: Capture, model: ReplayedModel, origin: Origin | None = None) -> tuple[Explanation, ...]:
    """Everything that is wrong with a run, in the order of computation; empty for a correct one.

    Args:
        run: what was computed.
        model: the correct model.
        origin: what the weights and the run came with, for causes that the model alone does not show.
    """
    explaining = Explaining(run.title, run.dtype, model, origin)
    found = dict(captured_stages(run))
    for stage in stages(model.config):
        explaining.add(stage, found.get(stage, {}))
    return explaining.found


class Explaining:
    """:func:`explain` a stage at a time.

    Each stage is judged on its own: its causes are searched from the correct model, whatever is wrong before it. What
    was found before is tried first, all together, and wins over other causes that fit as well.

    Args:
        run: title of the run.
        dtype: of the run.
        model: the correct model.
        origin: what the weights and the run came with, for causes that the model alone does not show.
    """

    def __init__(self, run: str, dtype: np.dtype, model: ReplayedModel, origin: Origin | None = None) -> None:
        self._run, self._dtype, self._model, self._origin = run, dtype, model, origin or Origin()
        self._stages = stages(model.config)
        self._found: list[_Cause] = []
        self._assumed: tuple[ReplayedModel, tuple[_Cause, ...]] = (model, ())
        self._tokens: dict[str, np.ndarray] = {}

    @property
    def found(self) -> tuple[Explanation, ...]:
        """Everything that is wrong with the stages so far."""
        return tuple(
            replace(cause.told, stages=tuple(cause.stages), where=_where(cause.stages, self._stages))
            for cause in self._found
        )

    def add(self, stage: str, activations: Mapping[str, np.ndarray]) -> None:
        """The next stage of the run, with what it computed."""
        judged = _Judged(self._run, self._dtype, self._tokens | dict(activations), stage, self._origin)
        self._judge(judged)
        self._tokens |= {name: array for name, array in activations.items() if name == stage}

    def _judge(self, judged: _Judged) -> None:
        fault, (assumed, before) = judged.first_fault(self._model), self._assumed
        if before and fault is None and judged.first_fault(assumed) is not None:
            self._assumed = (self._model, ())
        if fault is None:
            self._look_closer(judged)
            return
        reached = {"model"} if judged.stage == self._stages[-1] else {"model", "segments"}
        if before and judged.first_fault(assumed) is None:
            for cause in before:
                if cause.scope in reached:
                    cause.stages.append(judged.stage)
            return
        current, causes = self._model, list[_Cause]()
        unexplained: set[str] = set()
        for _ in range(_MOST):
            if fault is None:
                break
            cause, current = self._cause(judged, fault, current)
            if cause.told.cause is None:
                unexplained.add(fault.layer)
            else:
                causes.append(cause)
            fault = judged.first_fault(current, unexplained)
        self._assumed = (current, tuple(causes))

    def _look_closer(self, judged: _Judged) -> None:
        """Faults within the bound that a hypothesis explains; those found before are tried first."""
        current = self._model
        for _ in range(_MOST):
            fault = judged.first_fault(current, close=True)
            if fault is None:
                return
            known = {cause.told.cause for cause in self._found}
            fitting = judged.fitting(current, fault, known, close=True) or judged.fitting(current, fault, close=True)
            if not fitting:
                return
            current = self._named(judged, fault, fitting)[1]

    def _cause(self, judged: _Judged, fault: _Fault, current: ReplayedModel) -> tuple[_Cause, ReplayedModel]:
        """What explains a fault, and the model with it."""
        fitting = judged.fitting(current, fault)
        if not fitting:
            told = Explanation(self._run, fault.layer, None, fault.residual, None, fault.bound)
            self._found.append(_Cause(told, "stage", [judged.stage]))
            return self._found[-1], current
        return self._named(judged, fault, fitting)

    def _named(
        self, judged: _Judged, fault: _Fault, fitting: Sequence[tuple[float, float, Hypothesis]]
    ) -> tuple[_Cause, ReplayedModel]:
        """The best cause, or one that was found before."""
        for _, _, hypothesis in fitting:
            for known in self._found:
                if known.told.cause == hypothesis.cause:
                    known.stages.append(judged.stage)
                    return known, hypothesis.model
        residual, allowed, best = fitting[0]
        others = tuple(hypothesis.cause for _, _, hypothesis in fitting[1:])
        told = Explanation(self._run, fault.layer, best.cause, fault.residual, residual, allowed, others)
        self._found.append(_Cause(told, best.scope, [judged.stage]))
        return self._found[-1], best.model


@dataclass
class _Cause:
    told: Explanation
    scope: Scope
    stages: list[str]


@dataclass(frozen=True)
class _Fault:
    layer: str
    residual: float
    bound: float


class _FoundError(Exception):
    """Ends a replay that has given what it was for."""


@dataclass(frozen=True)
class _Judged:
    """One stage of a run: its activations, and the tokens before it."""

    run: str
    dtype: np.dtype
    known: Mapping[str, np.ndarray]
    stage: str
    origin: Origin

    def first_fault(self, model: ReplayedModel, but: Collection[str] = (), *, close: bool = False) -> _Fault | None:
        """The first layer that rounding does not explain; with ``close``, that more than one rounding is needed for."""
        found: dict[str, float] = {}

        def seen(name: str, value: np.ndarray) -> None:
            if name in self.known and name not in but:
                found[name] = _residual(self.known[name], value)

        replay_each(model, self.known, seen, self.stage)
        least = _NEGLIGIBLE * roundoff(self.dtype) if close else least_bound(model, self.dtype)
        if all(residual <= least for residual in found.values()):  # no bound is smaller: they need not be known
            return None
        allowed = self._bounds(model, close=close)
        for name, residual in found.items():
            if not residual <= max(least, allowed[name]):
                return _Fault(name, residual, max(least, allowed[name]))
        return None

    def fitting(
        self, model: ReplayedModel, fault: _Fault, only: Collection[str | None] = (), *, close: bool = False
    ) -> list[tuple[float, float, Hypothesis]]:
        """Hypotheses that explain the fault, the best first, each with its residual and the bound on that.

        Args:
            model: what the hypotheses change.
            fault: what they have to explain.
            only: causes to try; all if empty.
            close: whether to hold them to the effect of one rounding.
        """
        scored: list[tuple[float, Hypothesis]] = []
        for hypothesis in hypotheses(model, self.stage, replace(self.origin, activations=self.known)):
            if only and hypothesis.cause not in only:
                continue
            residual = self._at(fault.layer, hypothesis.model)
            if residual <= fault.residual / 4:
                scored.append((residual, hypothesis))
        found: list[tuple[float, float, Hypothesis]] = []
        for residual, hypothesis in sorted(scored, key=lambda entry: entry[0]):
            allowed = self._bounds(hypothesis.model, close=close)[fault.layer]
            if residual <= allowed:
                found.append((residual, allowed, hypothesis))
        return found

    def _bounds(self, model: ReplayedModel, *, close: bool) -> dict[str, float]:
        exact = replay(model, self.known, self.stage)
        allowed = bounds(model, self.dtype, exact=exact, known=self.known, stage=self.stage)
        share = CLOSE / bound_factor(model, self.dtype) if close else 1.0
        return {name: share * value for name, value in allowed.items()}

    def _at(self, layer: str, model: ReplayedModel) -> float:
        """The residual of one layer; infinite if the model has none of that name."""
        found = [math.inf]

        def seen(name: str, value: np.ndarray) -> None:
            if name == layer:
                found[0] = _residual(self.known[name], value)
                raise _FoundError

        with suppress(_FoundError):
            replay_each(model, self.known, seen, self.stage)
        return found[0]


def _where(found: Sequence[str], order: Sequence[str]) -> str:
    """Stages in words: ``blocks.0 to blocks.3, blocks.7``."""
    runs: list[list[str]] = []
    for stage in found:
        if runs and order.index(stage) == order.index(runs[-1][-1]) + 1:
            runs[-1].append(stage)
        else:
            runs.append([stage])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _residual(known: np.ndarray, value: np.ndarray) -> float:
    return relative(known, value) if known.shape == value.shape else math.inf
