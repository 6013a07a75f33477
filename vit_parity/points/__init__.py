"""Where a model is observed: every named activation in the order of computation, a module for each family.

Outside blocks a family names its activations as it likes. A block is named as in ``vit_spec.segments``, such as
``blocks.3``, and what it computes begins with its name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vit_parity.points.common import Between, Point, is_tokens, path_in_block, stage_of
from vit_spec import Config, needed_module, segments

__all__ = [
    "Point",
    "activation_names",
    "answer_name",
    "is_tokens",
    "part",
    "patch_maps",
    "path_in_block",
    "points",
    "stage_of",
    "stage_points",
    "stages",
]
_WHAT = "are not observed yet"


def points(config: Config) -> tuple[Point, ...]:
    """Every activation of the model, in the order of computation; the family's module documents the names."""
    return tuple(needed_module(__name__, config, _WHAT).points(config))


def stage_points(config: Config) -> tuple[Point, ...]:
    """``embed``, each block, ``norm``: tokens; and ``head``, the model's output.

    ``embed`` is what the first segment begins with. ``norm`` is there for every model: without a final norm it repeats
    the tokens after the last block.
    """
    blocks = [segment.block(at) for segment in segments(config) for at in range(segment.count)]
    first = needed_module(__name__, config, _WHAT).embed_point(config)
    return first, *(Point(block, block) for block in blocks), Point(Between.NORM, Between.NORM), Point(Between.HEAD, "")


def stages(config: Config) -> tuple[str, ...]:
    """The parts of the model in the order of computation: ``embed``, each block, ``head``."""
    blocks = (segment.block(at) for segment in segments(config) for at in range(segment.count))
    return Between.EMBED, *blocks, Between.HEAD


def part(x: Any, point: Point, config: Config, beside: Any = None) -> Any:
    """The part of a tensor of either framework that a point asks for.

    Args:
        x: what was observed.
        point: the point.
        config: of the model.
        beside: what was observed at ``point.beside``.
    """
    if not point.part:
        return x
    family = needed_module(__name__, config, _WHAT)
    return family.part(x, point, config, beside) if point.beside else family.part(x, point, config)


def patch_maps(x: np.ndarray, config: Config) -> np.ndarray | None:
    """Tokens between two stages -> what belongs to patches, (B, rows, columns, D); ``None`` for other arrays."""
    return needed_module(__name__, config, _WHAT).patch_maps(x, config)


def covered_by_maps(images: np.ndarray, config: Config) -> np.ndarray:
    """Images (B, H, W, C) -> the part of them that :func:`patch_maps` describe."""
    return needed_module(__name__, config, _WHAT).covered_by_maps(images, config)


def answer_name(config: Config) -> str:
    """Name of the model's output."""
    return "logits" if config.num_classes else "features"


def activation_names(config: Config) -> tuple[str, ...]:
    """The names of :func:`points`."""
    return tuple(point.name for point in points(config))
