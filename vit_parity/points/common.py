"""What an observation is.

A point names the module whose input or output is taken. The two models have the same modules under the same paths, so
one list serves both frameworks, and the models do not know that they are observed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["", "patches", "v"]
"""Which part of the tensor is taken: all of it; the positions of a feature map, row by row; or the values as heads
(B, h, N, d), out of a layer that computes several things at once."""


@dataclass(frozen=True)
class Point:
    """One observation."""

    name: str
    """Of the activation, such as ``blocks.3.attn.softmax``."""
    module: str
    """Path of the observed module; empty for the model itself."""
    side: Literal["input", "output"] = "output"
    part: Part = ""
