"""Where a model is observed: every named activation in the order of computation, a module for each family."""

from __future__ import annotations

from types import ModuleType

from vit_parity.points import vit
from vit_parity.points.common import Point
from vit_parity.points.vit import answer_name, is_tokens, path_in_block, stage_of
from vit_spec import ViTConfig

__all__ = [
    "Point",
    "activation_names",
    "answer_name",
    "is_tokens",
    "path_in_block",
    "points",
    "stage_of",
    "stage_points",
    "stages",
]

FAMILIES: dict[type, ModuleType] = {ViTConfig: vit}
"""Class of the config -> the family's module."""


def points(config: ViTConfig) -> tuple[Point, ...]:
    """Every activation of the model, in the order of computation; the family's module documents the names."""
    return FAMILIES[type(config)].points(config)


def stage_points(config: ViTConfig) -> tuple[Point, ...]:
    """The tokens between blocks and the model's output only: ``embed``, each block, ``norm`` and ``head``."""
    return FAMILIES[type(config)].stage_points(config)


def stages(config: ViTConfig) -> tuple[str, ...]:
    """The parts of the model in the order of computation: ``embed``, each block, ``head``."""
    return FAMILIES[type(config)].stages(config)


def activation_names(config: ViTConfig) -> tuple[str, ...]:
    """The names of :func:`points`."""
    return tuple(point.name for point in points(config))
