"""Large batches on a CPU, slice by slice."""

from __future__ import annotations

from collections.abc import Callable

import jax

from vit_jax.cores import cores
from vit_jax.inference.inference import Inference
from vit_jax.pure import Params
from vit_spec import ViTConfig

CACHED = 5 * 2**20
"""Bytes of a block's widest array, for each core of a device's share, up to which what lies between two layers is found
in a processor's caches."""


def sliced(inference: Inference) -> Callable[[Params, jax.Array], jax.Array]:
    """The same function, for pictures on one device, or on each of those of :class:`vit_jax.inference.spread.Spread`.

    On CPUs a large batch goes through the model in slices, one after the other in one compiled program: arrays between
    two layers stay in the caches and their memory is taken once. Elsewhere the batch goes through whole.
    """

    def run(params: Params, images: jax.Array) -> jax.Array:
        batch, *shape = images.shape
        if jax.default_backend() != "cpu":
            return inference(params, images)
        devices = jax.sharding.get_abstract_mesh().size or 1
        size = slice_size(inference.config, batch, inference.dtype.itemsize, max(1, cores() // devices))
        if size == batch:
            return inference(params, images)
        slices = images.reshape(batch // size, size, *shape)
        results = jax.lax.map(lambda pictures: inference(params, pictures), slices)  # (slices, size, K)
        return results.reshape(batch, -1)

    return run


def slice_size(config: ViTConfig, batch: int, itemsize: int, threads: int) -> int:
    """Pictures at a time: a divisor of the batch, and all of it where none comes near what the caches hold.

    Args:
        batch: pictures.
        itemsize: bytes of a number between two layers.
        threads: cores, a device's share of them.
    """
    most = CACHED * threads // (config.num_tokens * config.hidden_dim * itemsize)
    fitting = [size for size in range(most // 2 + 1, most + 1) if batch % size == 0]
    return max(fitting, default=batch)
