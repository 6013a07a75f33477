"""How a step is executed: devices, precision, rematerialisation. Imports no JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Parallel = Literal["jit", "pmap"]
Precision = Literal["float32", "bfloat16"]
AttentionKind = Literal["written", "fused", "cudnn"]
Remat = Literal["auto", "none", "full", "dots", "dots_no_batch"]
"""What of a block is computed again in the backward pass instead of being kept: what takes hardly any time; nothing;
everything; everything but the results of matrix products; everything but those of products without batch axes, that is,
of linear layers.

``auto`` is ``dots_no_batch`` in a step of :func:`vit_jax.training.jit_engine` on a single CPU device, where it costs
hardly any time, unless dropout would be drawn anew; else ``none``."""


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis; -1 for what is left."""

    data: int = -1
    """Parts that a batch is cut into; -1: the devices that are left."""
    fsdp: int = 1
    """Parts that parameters, moments and batches are cut into."""
    tensor: int = 1
    """Parts that heads and MLPs are cut into."""
