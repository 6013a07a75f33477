"""Both sides of a comparison, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vit_parity.endpoints import Endpoint
from vit_parity.flow import Flow
from vit_parity.frameworks import Dtype, Framework

if TYPE_CHECKING:
    from conversion import Checkpoint

ImageSize = int | tuple[int, int] | None
Load = Callable[[str, ImageSize], "Checkpoint"]
"""Reads the weights at a path, their position table resized for images of a size, or as it is for ``None``."""


@dataclass(frozen=True)
class Side:
    """What is run, and the weights that it runs with."""

    endpoint: Endpoint
    checkpoint: Checkpoint | None
    """``None`` for a capture."""

    @property
    def framework(self) -> Framework | None:
        """The framework of one of our own models; ``None`` for anything else."""
        return self.endpoint.kind if self.endpoint.kind in ("torch", "jax") else None

    @property
    def own_params(self) -> Mapping[str, np.ndarray] | None:
        """The weights at its path; ``None`` if it has none of its own."""
        return None if self.checkpoint is None or self.endpoint.borrows else self.checkpoint.params


def with_joint_biases(sides: Sequence[Side]) -> tuple[Side, ...]:
    """Sides that show the same activations: where one has biases of queries, keys and values in one layer, those that
    have biases of queries and values beside it get them there too, with zeros for the keys."""
    from conversion.changes.vit.restate import restated

    def has_joint(side: Side) -> bool:
        return getattr(side.checkpoint and side.checkpoint.config, "qkv_bias", False)

    def joint(side: Side) -> Side:
        same = side.checkpoint and restated(side.checkpoint, lambda it: ["biases beside a layer"] if it.qv_bias else [])
        return side if same is None else replace(side, checkpoint=same)

    return tuple(map(joint, sides)) if any(map(has_joint, sides)) else tuple(sides)


@dataclass(frozen=True)
class Runs:
    """The sides, ready to run on the same images."""

    sides: tuple[Side, ...]
    flows: tuple[Flow, ...]
    images: np.ndarray
    """(B, H, W, C), preprocessed."""
    input_name: str
    """What the images are, in words."""
    dtype: Dtype
    load: Load

    @property
    def ours(self) -> tuple[tuple[Framework, Checkpoint, str], ...]:
        """The sides that are our own models: framework, weights and title."""
        return tuple(
            (side.framework, side.checkpoint, side.endpoint.title)
            for side in self.sides
            if side.framework is not None and side.checkpoint is not None
        )

    @property
    def with_weights(self) -> tuple[tuple[Endpoint, Checkpoint], ...]:
        """The sides that have weights of their own."""
        return tuple(
            (side.endpoint, side.checkpoint)
            for side in self.sides
            if side.checkpoint is not None and not side.endpoint.borrows
        )
