"""The forward pass in numpy float64 from whatever activations are known: what each layer should have given.

Each activation is computed from the nearest known ones before it. Given all of a run's own activations, the difference
from the replay is each layer's own error, without the error that it inherited. The model is written a second time
here, a module for each family, so that a hypothesis about other people's code can be tried in a few lines.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vit_parity.points import stages
from vit_parity.replay.common import Replay, ReplayedModel, Seen, float64_params
from vit_spec import needed_module

__all__ = ["ReplayedModel", "Seen", "StageByStage", "float64_params", "replay", "replay_each"]


def replay(model: ReplayedModel, known: Mapping[str, np.ndarray], stage: str | None = None) -> dict[str, np.ndarray]:
    """What each layer gives on the known inputs.

    Args:
        model: the model.
        known: activations that are taken as they are wherever a later one is computed from them.
        stage: compute this one only (see :func:`vit_parity.points.stages`); if the tokens before it are not known, the
            whole model before it is computed too.

    Returns:
        Name → float64 array, for every activation of :func:`vit_parity.points.points` (of the stage).
    """
    found: dict[str, np.ndarray] = {}
    replay_each(model, known, found.__setitem__, stage)
    return found


def replay_each(model: ReplayedModel, known: Mapping[str, np.ndarray], seen: Seen, stage: str | None = None) -> None:
    """:func:`replay`, which hands each activation over as soon as it is computed, and keeps none."""
    run = StageByStage(model, known)
    order = stages(model.config)
    if stage is None:
        for at in order:
            run.compute(at, seen)
        return
    last = order.index(stage)
    before = [at for at in range(last) if order[at] in known]
    if before:
        run.resume(known[order[before[-1]]])
    for at in order[before[-1] + 1 if before else 0 : last + 1]:
        run.compute(at, seen if at == stage else _nobody)


class StageByStage:
    """A replay that is computed a stage at a time, each on the tokens that the one before gave.

    Args:
        model: the model.
        known: as for :func:`replay`.
    """

    def __init__(self, model: ReplayedModel, known: Mapping[str, np.ndarray] | None = None) -> None:
        self._forward = needed_module(__name__, model.config, "are not replayed in numpy yet").forward
        self._model, self._known = model, known or {}
        self._tokens = np.zeros(0)

    def resume(self, tokens: np.ndarray) -> None:
        """Take these tokens as what the stage before gave."""
        self._tokens = tokens.astype(np.float64)

    def compute(self, stage: str, seen: Seen) -> None:
        """The next stage."""
        self._tokens = self._forward(Replay(self._model, self._known, seen), stage, self._tokens)


def _nobody(name: str, value: np.ndarray) -> None:
    del name, value
