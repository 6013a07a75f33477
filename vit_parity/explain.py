"""Why a run is off: each layer replayed in float64 on the run's own inputs, under hypotheses until one fits.

A layer that agrees with the replay within its rounding bound is correct, whatever its input was. So causes are searched
only for layers that are off themselves, and a correct run is blamed for nothing. A hypothesis is accepted if it brings
the residual within the bound and to at most a quarter of what it was; all that do are reported.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vit_parity.bound import bounds, relative
from vit_parity.capture import Capture
from vit_parity.hypotheses import Hypothesis, Origin, Scope, hypotheses
from vit_parity.points import stages
from vit_parity.replay import ReplayedModel, replay

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

    @property
    def sentence(self) -> str:
        """The explanation in words."""
        if self.cause is None:
            off = f"{self.before:.1e} where rounding explains {self.bound:.1e}"
            return f"{self.run}: {self.layer} is off by {off}, and no hypothesis fits"
        where = self.stages[0] if len(self.stages) == 1 else f"{self.stages[0]} to {self.stages[-1]}"
        told = f"{self.run} {self.cause} ({where}): {self.before:.1e} → {self.after:.1e} at {self.layer}"
        return f"{told}; or it {', or '.join(self.alternatives)}" if self.alternatives else told

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"sentence": self.sentence}


def explain(run: Capture, model: ReplayedModel, origin: Origin | None = None) -> tuple[Explanation, ...]:
    """Everything that is wrong with a run, in the order of computation; empty for a correct one.

    Args:
        run: what was computed.
        model: the correct model.
        origin: what the weights came with, for causes in images and position tables.
    """
    origin = origin or Origin()
    found: list[Explanation] = []
    scopes: list[Scope] = []
    current = model
    *_, last = stages(model.config)
    for stage in stages(model.config):
        fault = _first_fault(run, current, stage)
        if current is not model:
            sound = _first_fault(run, model, stage) is None
            if fault is not None and sound:  # the earlier fault is not here
                current, fault = model, None
            elif fault is None and not sound:
                reached = {"model"} if stage == last else {"model", "segments"}
                found = [
                    replace(it, stages=(*it.stages, stage)) if scope in reached else it
                    for it, scope in zip(found, scopes, strict=True)
                ]
        unexplained: set[str] = set()
        for _ in range(_MOST):
            if fault is None:
                break
            best = _best(run, current, stage, fault, origin) or _best(run, model, stage, fault, origin)
            if best is None:
                found.append(Explanation(run.title, fault.layer, None, fault.residual, None, fault.bound, (), (stage,)))
                scopes.append("stage")
                unexplained.add(fault.layer)
            else:
                explanation, hypothesis = best
                found.append(explanation)
                scopes.append(hypothesis.scope)
                current = hypothesis.model
            fault = _first_fault(run, current, stage, unexplained)
    return tuple(found)


@dataclass(frozen=True)
class _Fault:
    layer: str
    residual: float
    bound: float


def _first_fault(run: Capture, model: ReplayedModel, stage: str, but: Collection[str] = ()) -> _Fault | None:
    """The stage's first layer that rounding does not explain."""
    known = run.activations
    own = replay(model, known, stage)
    allowed = bounds(model, run.dtype, exact=own, known=known, stage=stage)
    for name, value in own.items():
        if name in known and name not in but:
            residual = _residual(known[name], value)
            if not residual <= allowed[name]:
                return _Fault(name, residual, allowed[name])
    return None


def _best(
    run: Capture, model: ReplayedModel, stage: str, fault: _Fault, origin: Origin
) -> tuple[Explanation, Hypothesis] | None:
    known = run.activations
    scored: list[tuple[float, Hypothesis]] = []
    for hypothesis in hypotheses(model, stage, origin):
        value = replay(hypothesis.model, known, stage).get(fault.layer)
        residual = np.inf if value is None else _residual(known[fault.layer], value)
        if residual <= fault.residual / 4:
            scored.append((residual, hypothesis))
    fitting: list[tuple[float, float, Hypothesis]] = []
    for residual, hypothesis in sorted(scored, key=lambda entry: entry[0]):
        exact = replay(hypothesis.model, known, stage)
        allowed = bounds(hypothesis.model, run.dtype, exact=exact, known=known, stage=stage)[fault.layer]
        if residual <= allowed:
            fitting.append((residual, allowed, hypothesis))
    if not fitting:
        return None
    residual, allowed, best = fitting[0]
    others = tuple(hypothesis.cause for _, _, hypothesis in fitting[1:])
    told = Explanation(run.title, fault.layer, best.cause, fault.residual, residual, allowed, others, (stage,))
    return told, best


def _residual(known: np.ndarray, value: np.ndarray) -> float:
    return relative(known, value) if known.shape == value.shape else np.inf
