"""The forward pass in numpy float64 from whatever activations are known: what each layer should have given.

Each activation is computed from the nearest known ones before it. Given all of a run's own activations, the difference
from the replay is each layer's own error, without the error that it inherited. The model is written a second time
here, a module for each family, so that a hypothesis about other people's code can be tried in a few lines.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vit_parity.points import stages
from vit_parity.replay.common import Replay, ReplayedModel, float64_params
from vit_spec import needed_module

__all__ = ["ReplayedModel", "float64_params", "replay"]


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
    forward = needed_module(__name__, model.config, "are not replayed in numpy yet").forward
    return Replay(model, known).run(forward, stages(model.config), stage)
