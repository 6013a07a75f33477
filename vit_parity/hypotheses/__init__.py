"""What usually goes wrong in a port, each as a model that can be replayed; a module for each family."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from vit_parity.hypotheses import vit
from vit_parity.hypotheses.common import Hypothesis, Origin, Scope
from vit_parity.replay import ReplayedModel
from vit_spec import ViTConfig

__all__ = ["Hypothesis", "Origin", "Scope", "hypotheses"]

FAMILIES: dict[type, ModuleType] = {ViTConfig: vit}
"""Class of the config -> the family's module."""


def hypotheses(model: ReplayedModel, stage: str, origin: Origin) -> Iterator[Hypothesis]:
    """Everything that may have gone wrong in a stage (:func:`vit_parity.points.stages`)."""
    return FAMILIES[type(model.config)].hypotheses(model, stage, origin)
