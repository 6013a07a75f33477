"""Large batches on a CPU, one microbatch after another."""

from __future__ import annotations

from collections.abc import Callable

import jax

from vit_jax.cores import cores
from vit_jax.inference.inference import Inference
from vit_jax.layers.xla.platform import platform
from vit_jax.pure import Params
from vit_spec import Config, block_sizes

CACHED = 5 * 2**20
"""Bytes per core of a microbatch's widest activation: up to this size, what one layer hands to the next stays in the
processor's caches."""


def microbatched(inference: Inference) -> Callable[[Params, jax.Array], jax.Array]:
    """The same function, run on CPUs one microbatch after another in one compiled program.

    Activations then stay in the caches, and their memory is allocated once. Other devices take the batch whole. Works
    on one device, and inside :class:`~vit_jax.inference.data_parallel.DataParallel` on each of several.
    """

    def run(params: Params, images: jax.Array) -> jax.Array:
        batch, *shape = images.shape
        if platform() != "cpu":
            return inference(params, images)
        devices = jax.sharding.get_abstract_mesh().size or 1
        size = microbatch_size(inference.config, batch, inference.dtype.itemsize, max(1, cores() // devices))
        if size == batch:
            return inference(params, images)
        microbatches = images.reshape(batch // size, size, *shape)
        results = jax.lax.map(lambda microbatch: inference(params, microbatch), microbatches)  # (batch / size, size, K)
        return results.reshape(batch, -1)

    return run


def microbatch_size(config: Config, batch: int, itemsize: int, threads: int) -> int:
    """Images at a time: the largest divisor of the batch that fits the caches, if it fills at least half of them; else
    the whole batch.

    Args:
        batch: images.
        itemsize: bytes of one activation value.
        threads: cores that this device may use.
    """
    widest = max(each.tokens * each.hidden for each in block_sizes(config))
    most = CACHED * threads // (widest * itemsize)
    fitting = [size for size in range(most // 2 + 1, most + 1) if batch % size == 0]
    return max(fitting, default=batch)
