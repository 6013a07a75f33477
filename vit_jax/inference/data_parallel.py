"""A batch shared among the devices of one process; on a CPU, among its cores."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax.cores import cores
from vit_jax.pure import Params
from vit_spec import VitportError

COPIES = 256 * 2**20
"""Bytes of parameters that a CPU's devices may hold together where more than one shares a batch. Each device reads its
own copy: for ViT-B that cancels the gain, and larger models would run out of memory."""
_BATCH = PartitionSpec("data")


def offer_cores() -> None:
    """Lets JAX have one CPU device per core, unless the number of devices was chosen already.

    Call it before JAX computes anything; later it has no effect. Do not call it in a process that also trains: a
    training step gains nothing from these devices, and a mesh takes all of them.
    """
    by_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    by_option: int = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    if not by_flag and by_option < 0:
        with contextlib.suppress(RuntimeError):  # JAX has devices already
            jax.config.update("jax_num_cpu_devices", cores())


class DataParallel:
    """A compiled function of a batch, which devices share, each with its own copy of the parameters.

    On CPUs the devices share the cores: while one waits for the end of an operation, another's operation runs.

    Args:
        function: from parameters and an array with a leading batch axis to one with that axis; no row may depend on
            others.
        params: copied to each device.
        batch: rows in each call. The devices are as many of this process's as divide it.
    """

    def __init__(self, function: Callable[[Params, jax.Array], jax.Array], params: Params, batch: int) -> None:
        count = device_count(batch, sum(array.nbytes for array in params.values()))
        self.batch = batch
        self.mesh = Mesh(np.array(jax.local_devices()[:count]), ("data",))
        copied, self._sharded = NamedSharding(self.mesh, PartitionSpec()), NamedSharding(self.mesh, _BATCH)
        self._params = jax.device_put(params, copied)
        shared = jax.shard_map(function, mesh=self.mesh, in_specs=(PartitionSpec(), _BATCH), out_specs=_BATCH)
        self._compiled = jax.jit(shared, in_shardings=(copied, self._sharded))

    def place(self, rows: np.ndarray | jax.Array) -> jax.Array:
        """The batch on the devices that will read it, for more than one call.

        Raises:
            VitportError: for another number of rows than the batch has.
        """
        if len(rows) != self.batch:
            raise VitportError(
                f"The batch has {len(rows)} rows, and this function was compiled for {self.batch}: pad the batch to "
                f"{self.batch}, or compile another function for {len(rows)}."
            )
        return jax.device_put(rows, self._sharded)

    def __call__(self, rows: np.ndarray | jax.Array) -> jax.Array:
        """The function's results for one batch, on the devices that computed them."""
        return self._compiled(self._params, self.place(rows))

    def lower(self, rows: Any) -> jax.stages.Lowered:
        """The program for a batch, or for its shape."""
        return self._compiled.lower(self._params, rows)


def device_count(batch: int, size: int) -> int:
    """Devices of this process that share a batch: the most that divide it, within the memory for their copies.

    Args:
        batch: rows.
        size: bytes of the parameters.

    Raises:
        VitportError: if the batch has no rows.
    """
    if batch < 1:
        raise VitportError(f"batch must be 1 or more; got {batch}.")
    most = jax.local_device_count()
    if jax.default_backend() == "cpu":
        most = min(most, max(1, COPIES // size))
    return max(count for count in range(1, most + 1) if batch % count == 0)
