"""What usually goes wrong in a port, each as a model that can be replayed; a module for each family."""

from __future__ import annotations

from collections.abc import Iterator

from vit_parity.hypotheses.common import Hypothesis, Origin, Scope
from vit_parity.replay import ReplayedModel
from vit_spec import needed_module

__all__ = ["Hypothesis", "Origin", "Scope", "hypotheses"]


def hypotheses(model: ReplayedModel, stage: str, origin: Origin) -> Iterator[Hypothesis]:
    """Everything that may have gone wrong in a stage (:func:`vit_parity.points.stages`)."""
    family = needed_module(__name__, model.config, "have no list of likely mistakes yet")
    return family.hypotheses(model, stage, origin)
