"""Connections between the processes of a run on CPUs, made before they are needed."""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from operator import add

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax.layers.xla.platform import platform_of
from vit_jax.training.devices.processes import gather_messages


def connect(mesh: Mesh) -> None:
    """Lets every group of devices along axes of the mesh exchange a number. A collective: all processes must call it.

    gloo, which joins CPUs, connects a group when it first exchanges something, and gives up where a process does not
    come within 30 seconds, as one may that still compiles or fetches data. Among those that are connected it waits for
    half an hour. Elsewhere there is nothing to do.
    """
    if jax.process_count() == 1 or platform_of(mesh) != "cpu":
        return
    axes = [name for name, size in mesh.shape.items() if size > 1]
    groups = [some for count in range(1, len(axes) + 1) for some in combinations(axes, count)]
    each = PartitionSpec(tuple(axes))

    def sums(own: jax.Array) -> jax.Array:
        return reduce(add, [jax.lax.psum(own, some) for some in groups])

    ones = jax.make_array_from_callback(
        (mesh.size,), NamedSharding(mesh, each), lambda where: np.ones(mesh.size, np.float32)[where]
    )
    summed = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=each, out_specs=each)).lower(ones).compile()
    gather_messages("")  # all are there, and have compiled
    jax.block_until_ready(summed(ones))
