"""What of a checkpoint a format has no place for, although it changes no output."""

from __future__ import annotations

import dataclasses
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.format import Format
from conversion.identify.shapes import Shapes
from vit_spec import ViTConfig


def forgotten(checkpoint: Checkpoint, target: Format, shapes: Shapes) -> list[str]:
    """What of ``Format.forgets`` this checkpoint has, and a reader of the file would take to be something else.

    Args:
        shapes: the format's own names → shapes.
    """
    conventions = {**target.conventions, **(target.shape_facts(shapes) if target.shape_facts is not None else {})}
    lost: list[str] = []
    for name in target.forgets:
        if name == "labels":
            lost += [f"the names of {len(checkpoint.labels)} classes"] if checkpoint.labels else []
        elif name == "preprocessing":
            lost += _forgotten_preprocessing(checkpoint, target)
        elif name == "image_size":
            height, width = checkpoint.config.image_size
            lost += [f"image_size={height}x{width} (readers take a square)"] if height != width else []
        else:
            usual = conventions.get(name, getattr(ViTConfig(), name))
            lost += _differing(name, getattr(checkpoint.config, name), usual)
    return lost


def _forgotten_preprocessing(checkpoint: Checkpoint, target: Format) -> list[str]:
    own, usual = checkpoint.preprocessing, target.usual_preprocessing(checkpoint.config)
    lost: list[str] = []
    for name in (field.name for field in dataclasses.fields(own)):
        lost += _differing(f"preprocessing.{name}", getattr(own, name), getattr(usual, name))
    return lost


def _differing(name: str, own: Any, usual: Any) -> list[str]:
    return [] if own == usual else [f"{name}={own!r} (readers take {usual!r})"]
