"""Parameters where a mesh uses them: explicit collectives gather them from FSDP's shards and sum their gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from vit_jax.layers.xla.axes import FSDP, images_along
from vit_jax.pure import Params
from vit_jax.training.devices.sharding import BATCH, partition
from vit_spec import Parameter


@dataclass(frozen=True)
class Gather:
    """How parts of a model run over a mesh without a tensor axis: each device on its own images, with parameters that
    it gathers.

    What FSDP shards is all-gathered in the dtype of the computation. Its gradient is reduce-scattered along ``fsdp``,
    and only each device's shard is summed along ``data``. Left alone, XLA may sum whole kernels along all axes, and in
    a scan cut activations like weights.
    """

    mesh: Mesh
    dtype: DTypeLike
    """Of the computation."""
    wide: bool = False
    """Whether gradients are cast to float32 before they are summed."""
    outside: ClassVar[bool] = True
    """Parts outside blocks run so too."""

    def run(
        self,
        part: Callable[..., Any],
        known: Mapping[str, Parameter],
        params: Params,
        x: jax.Array,
        keys: jax.Array | None,
        *shared: Any,
    ) -> Any:
        """``part(params, x, keys, *shared)`` on each device.

        Args:
            part: gives an array for each image, or several.
            known: path → what is known of a parameter.
            params: by path.
            x: (B, …), an array for each image.
            keys: (B,), or ``None``.
            shared: what all images have in common.
        """
        cuts = {path: partition(known[path], array.shape, self.mesh) for path, array in params.items()}

        def own(params: Params, x: jax.Array, keys: jax.Array | None, *shared: Any) -> Any:
            whole = {path: self._whole(known[path], array, cuts[path]) for path, array in params.items()}
            with images_along():
                return part(whole, x, keys, *shared)

        if not self.wide:  # else gradients would be cast before they are summed
            params = {path: self._cast(known[path], array) for path, array in params.items()}
        into = (cuts, BATCH, None if keys is None else BATCH, *[PartitionSpec()] * len(shared))
        divided = jax.shard_map(own, mesh=self.mesh, in_specs=into, out_specs=BATCH, check_vma=False)
        return divided(params, x, keys, *shared)

    def _whole(self, known: Parameter, x: jax.Array, cut: PartitionSpec) -> jax.Array:
        """A parameter from its shards, in the dtype of the computation if it is a kernel."""
        if FSDP not in cut:
            return self._cast(known, x)
        dtype = str(jnp.dtype(self.dtype) if known.is_kernel else x.dtype)
        return _gather(x, cut.index(FSDP), dtype, "float32" if self.wide else dtype)

    def _cast(self, known: Parameter, x: jax.Array) -> jax.Array:
        return x.astype(self.dtype) if known.is_kernel else x


def keep_images(mesh: Mesh, x: jax.Array) -> jax.Array:
    """Tokens, held on the devices of their images."""
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, BATCH))


def all_but_weights(shapes: Collection[tuple[int, ...]]) -> Callable[..., bool]:
    """A policy of ``jax.checkpoint`` that saves everything except gathered weights of these shapes, which the backward
    pass gathers again."""

    def saveable(primitive: Any, *operands: Any, **params: Any) -> bool:
        inner = params.get("call_jaxpr")  # of a function with a derivative of its own
        names = {primitive.name} if inner is None else {each.primitive.name for each in inner.eqns}
        moves = primitive.name in ("sharding_constraint", "convert_element_type", "broadcast_in_dim", "squeeze")
        shape = operands[0].shape if operands else ()
        return "all_gather" not in names and not (moves and (shape in shapes or shape[1:] in shapes))

    return saveable


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(x: jax.Array, axis: int, dtype: str, summed: str) -> jax.Array:
    """A parameter from its shards along an axis, cast before it is gathered; gradients are summed in another dtype."""
    del summed
    return jax.lax.all_gather(x.astype(dtype), FSDP, axis=axis, tiled=True)


def _gather_forward(x: jax.Array, axis: int, dtype: str, summed: str) -> tuple[jax.Array, None]:
    return _gather(x, axis, dtype, summed), None


def _gather_backward(axis: int, dtype: str, summed: str, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    del dtype
    before, size, after = gradient.shape[:axis], gradient.shape[axis], gradient.shape[axis + 1 :]
    devices = jax.lax.axis_size(FSDP)
    parts = gradient.astype(summed).reshape(*before, devices, size // devices, *after)
    # Along an axis of its own, in front: TPUs sum an array whole where they would have to scatter within tiles.
    return (jax.lax.psum_scatter(jnp.moveaxis(parts, axis, 0), FSDP, scatter_dimension=0),)


_gather.defvjp(_gather_forward, _gather_backward)
