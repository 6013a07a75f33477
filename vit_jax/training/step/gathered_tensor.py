"""Parameters where a mesh with a tensor axis uses them, moved by XLA between the shardings that they are held in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from vit_jax.layers.xla.axes import DATA, FSDP, images_along
from vit_jax.pure import Params
from vit_jax.training.devices.sharding import partition
from vit_spec import Parameter


@dataclass(frozen=True)
class GatherByCompiler:
    """What :class:`vit_jax.training.step.gathered.Gather` does, over a mesh with a tensor axis, along which XLA would
    gather first what an explicit collective takes.

    A part runs for groups of images that lie along some axes of the mesh, each with its own copy of parameters. The
    gradient of a parameter is then the sum of its copies', an array that can be cast and summed in the order that costs
    least. Left alone, XLA sums what a product gives, in the dtype of the computation, along all axes at once.

    - Along ``data`` alone: what FSDP shards is summed along ``fsdp`` first, of which each device keeps its part
      (reduce-scatter), and only parts along ``data``.
    - ``wide``: along both axes, so that gradients are cast to float32 before they are summed.
    """

    mesh: Mesh
    dtype: DTypeLike
    """Of the computation."""
    wide: bool = False

    @property
    def outside(self) -> bool:
        """Whether parts outside blocks run so too."""
        return self.wide

    @property
    def groups(self) -> int:
        """Copies of a parameter."""
        return self.mesh.shape[DATA] * (self.mesh.shape[FSDP] if self.wide else 1)

    def _copies(self, known: Parameter, x: jax.Array) -> tuple[jax.Array, bool]:
        """One parameter without FSDP's sharding, and whether it has an axis of copies.

        A kernel is first cast to the dtype of the computation; else XLA would cast it after gathering.
        """
        cut = partition(known, x.shape, self.mesh)
        whole = _without_fsdp(cut, wide=self.wide)
        if self.wide:
            dtype = jnp.dtype(self.dtype) if known.is_kernel else x.dtype
            return _spread(x, _Spread(self.mesh, str(dtype), cut, whole)), True
        x = x.astype(self.dtype) if known.is_kernel else x
        copied = self.groups > 1 and whole != cut
        if copied:
            x = jnp.broadcast_to(x, (self.groups, *x.shape))
            x = self._held(x, PartitionSpec(DATA, *cut))
            whole = PartitionSpec(DATA, *whole)
        return self._held(x, whole), copied

    def run(
        self,
        part: Callable[..., Any],
        known: Mapping[str, Parameter],
        params: Params,
        x: jax.Array,
        keys: jax.Array | None,
        *shared: Any,
    ) -> Any:
        """``part(params, x, keys, *shared)``, group by group; arguments as of
        :meth:`vit_jax.training.step.gathered.Gather.run`."""
        copies = {path: self._copies(known[path], array) for path, array in params.items()}
        arrays = {path: array for path, (array, _) in copies.items()}
        if self.wide:
            return self._run_apart(part, arrays, x, keys, *shared)
        if self.groups == 1:
            return part(arrays, x, keys, *shared)
        own = {path: 0 if copied else None for path, (_, copied) in copies.items()}
        axes = (own, 0, None if keys is None else 0, *[None] * len(shared))
        with images_along(FSDP):
            run = jax.vmap(part, in_axes=axes, spmd_axis_name=DATA)
            y = run(arrays, self._by_group(x), None if keys is None else self._by_group(keys), *shared)
        return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), y)

    def _by_group(self, array: jax.Array) -> jax.Array:
        """(B, …) -> (groups, B / groups, …), on the devices where it lies."""
        return self._held(array.reshape(self.groups, -1, *array.shape[1:]), PartitionSpec(DATA, FSDP))

    def _run_apart(
        self, part: Callable[..., Any], copies: Params, x: jax.Array, keys: jax.Array | None, *shared: Any
    ) -> Any:
        """Each device's images by themselves: ``jax.vmap`` would make one convolution of all devices' kernels, which
        XLA does not divide."""

        def run(copies: Params, x: jax.Array, keys: jax.Array | None, *shared: Any) -> Any:
            with images_along():
                return part({path: jax.lax.squeeze(array, (0,)) for path, array in copies.items()}, x, keys, *shared)

        rows = PartitionSpec((DATA, FSDP))
        into = (rows, rows, None if keys is None else rows, *[PartitionSpec()] * len(shared))
        divided = jax.shard_map(
            run, mesh=self.mesh, in_specs=into, out_specs=rows, axis_names={DATA, FSDP}, check_vma=False
        )
        return divided(copies, x, keys, *shared)

    def _held(self, x: jax.Array, where: PartitionSpec) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, where))


@dataclass(frozen=True)
class _Spread:
    """How a parameter is copied to every device that has images."""

    mesh: Mesh
    dtype: str
    cut: PartitionSpec
    """How it is sharded."""
    whole: PartitionSpec
    """The same without FSDP."""

    def held(self, x: jax.Array, *axes: Any) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(*axes)))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _spread(x: jax.Array, how: _Spread) -> jax.Array:
    """A parameter -> its copies, (groups, …), in the dtype of the computation; gradients are summed in its own."""
    x = how.held(x.astype(how.dtype), *how.whole)
    groups = how.mesh.shape[DATA] * how.mesh.shape[FSDP]
    return how.held(jnp.broadcast_to(x, (groups, *x.shape)), (DATA, FSDP), *how.whole)


def _spread_forward(x: jax.Array, how: _Spread) -> tuple[jax.Array, None]:
    return _spread(x, how), None


def _spread_backward(how: _Spread, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    data, fsdp = how.mesh.shape[DATA], how.mesh.shape[FSDP]
    parts = gradient.astype(jnp.float32)
    if how.cut == how.whole:
        return (how.held(parts.sum(0), *how.cut),)
    parts = how.held(parts.reshape(data, fsdp, *parts.shape[1:]), DATA, FSDP, *how.whole)
    return (how.held(how.held(parts.sum(1), DATA, *how.cut).sum(0), *how.cut),)


_spread.defvjp(_spread_forward, _spread_backward)


def _without_fsdp(cut: PartitionSpec, *, wide: bool) -> PartitionSpec:
    """A packed kernel that both axes shard is gathered by its layer, after an exchange along ``tensor``, if images lie
    along ``fsdp`` there."""
    axes = []
    for axis in cut:
        if isinstance(axis, tuple) and wide:
            axis = next(name for name in axis if name != FSDP)
        axes.append(None if axis == FSDP else axis)
    return PartitionSpec(*axes)
