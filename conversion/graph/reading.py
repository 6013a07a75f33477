"""A model that was found in a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conversion.tensors.table import Tensor


@dataclass(frozen=True)
class Reading:
    """A model, and the values of the graph that are its stages."""

    facts: Mapping[str, Any]
    """Config fields."""
    tensors: Mapping[str, Tensor]
    """Canonical name → tensor."""
    notes: tuple[str, ...]
    channels_last: bool
    """Whether the graph takes (B, H, W, C)."""
    stages: Mapping[str, str] = field(default_factory=dict)
    """Stage of the model (``embed``, ``blocks.0``, …, ``norm``, ``head``) → name of its value in the graph."""
