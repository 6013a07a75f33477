"""A batch for inference, shared out among the devices of one process; on a CPU as many as it has cores."""

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

_ROWS = PartitionSpec("data")
COPIES = 256 * 2**20
"""Bytes of parameters that a CPU's devices hold together at most, where more than one does. Each reads its own copy: of
a ViT-B that takes as long as sharing wins, and of larger models memory runs out."""


def offer_cores() -> None:
    """Lets JAX have as many CPU devices as there are cores, unless their number was chosen already.

    To be called before JAX computes anything: later the devices stay as they are. A process that also trains is better
    off without: a training step is no quicker on these devices, and a mesh takes them all.
    """
    by_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    by_option: int = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    if not by_flag and by_option < 0:
        with contextlib.suppress(RuntimeError):  # it computes already
            jax.config.update("jax_num_cpu_devices", cores())


class Spread:
    """A function of parameters and rows, whose rows are shared out among devices; called with rows, it is compiled.

    On CPUs all devices share the cores: while one waits for the last part of an operation, they work at another's.

    Args:
        function: from parameters, and arrays with an axis of rows in front, to arrays with that axis in front; no row's
            result depends on other rows.
        params: copied to each device.
        batch: rows of each call. As many local devices share them as divide them.
    """

    def __init__(self, function: Callable[[Params, Any], Any], params: Params, batch: int) -> None:
        count = device_count(batch, sum(array.nbytes for array in params.values()))
        self.mesh = Mesh(np.array(jax.local_devices()[:count]), ("data",))
        whole, cut = NamedSharding(self.mesh, PartitionSpec()), NamedSharding(self.mesh, _ROWS)
        self._cut = cut
        self._params = jax.device_put(params, whole)
        shared = jax.shard_map(function, mesh=self.mesh, in_specs=(PartitionSpec(), _ROWS), out_specs=_ROWS)
        self._compiled = jax.jit(shared, in_shardings=(whole, cut))

    def place(self, rows: Any) -> Any:
        """Rows on the devices that want them, for more than one call."""
        return jax.device_put(rows, self._cut)

    def __call__(self, rows: Any) -> Any:
        return self._compiled(self._params, self.place(rows))


def device_count(batch: int, size: int) -> int:
    """Local devices that share a batch.

    Args:
        batch: rows.
        size: bytes of the parameters.
    """
    most = jax.local_device_count()
    if jax.default_backend() == "cpu":
        most = min(most, max(1, COPIES // size))
    return max(count for count in range(1, most + 1) if batch % count == 0)
