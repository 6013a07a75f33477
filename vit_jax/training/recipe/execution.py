"""How a step is executed: devices, precision, rematerialisation. Imports no JAX."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Parallel = Literal["jit", "pmap"]
Precision = Literal["float32", "bfloat16"]
AttentionKernel = Literal["explicit", "fused", "cudnn", "flash"]
AttentionKind = Literal["auto", "explicit", "fused", "cudnn", "flash"]
Remat = Literal["auto", "none", "full", "dots", "dots_no_batch"]
"""What the backward pass recomputes of each block instead of storing it: what costs hardly any time; nothing;
everything; everything but the results of matrix products; everything but products without batch axes, that is, the
results of linear layers.

``auto`` is ``dots_no_batch`` in a step of :func:`vit_jax.training.jit_engine` on a single CPU device, where it costs
hardly any time, and ``dots`` on TPUs with ``scan``, which otherwise keeps three float32 arrays for every norm; unless
dropout would have to be drawn again. Elsewhere it is ``none``."""
Scan = bool | Literal["auto"]
"""Whether the blocks of a segment are one compiled block in a loop, ``jax.lax.scan``.

``auto``: on TPUs, whose compiler takes ten times as long for twelve blocks one after another. Elsewhere they are
unrolled, which compiles in minutes and spares copies into the loop's stacks and out."""


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis of the mesh; -1 for the devices that are left."""

    data: int = -1
    """Shards of a batch; -1: the devices that are left."""
    fsdp: int = 1
    """Shards of parameters, moments and batches."""
    tensor: int = 1
    """Shards of heads and MLPs."""


def mesh_words(shape: MeshShape) -> str:
    """A mesh as ``--mesh`` takes it: axes of one device are left out."""
    sizes = {axis: size for axis, size in asdict(shape).items() if size > 1}
    return ",".join(f"{axis}={size}" for axis, size in sizes.items()) or "data=1"
