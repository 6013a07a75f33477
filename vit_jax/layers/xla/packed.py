"""Packed layers, whose outputs are several arrays side by side, over a mesh with a tensor axis.

A shard of packed outputs misses the boundaries of heads and hidden units, so XLA would all-gather and re-shard the
activations. Instead, the kernel is sharded along its inputs, and an all-to-all gives each device the columns of its own
heads and hidden units: less data than the activations, and it can overlap with other layers. Without a tensor axis the
layers compute as usual.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Float

from vit_jax.layers.xla.axes import FSDP, TENSOR, image_axes
from vit_jax.layers.xla.platform import platform
from vit_jax.layers.xla.rows import as_rows


def unpacked(layer: nnx.Linear, x: Float[Array, "*batch _"], *shapes: tuple[int, ...]) -> Sequence[Array]:
    """``layer(x)``, taken apart: (..., inputs) -> (..., *shape) for each shape, in the order of the outputs.

    Args:
        layer: an ordinary linear layer.
        x: inputs.
        shapes: hidden units (M,), or heads (..., h, d); M and h are multiples of the tensor axis.
    """
    before, parts = x.shape[:-1], [_Part(shape) for shape in shapes]
    devices = _tensor_devices()
    if devices == 1:
        return [y.reshape(*before, *part.shape) for y, part in zip(_split(layer(x), parts), parts, strict=True)]
    bias = None if layer.bias is None else layer.bias[...]
    x, kernel, bias = layer.promote_dtype((x, layer.kernel[...], bias), dtype=layer.dtype)
    y = jnp.tensordot(as_rows(x), _by_device(kernel, parts, devices), 1, precision=layer.precision)
    if bias is not None:
        y = y + _by_device(bias, parts, devices)
    shares = jnp.split(y, _offsets([part.size // devices for part in parts]), axis=-1)  # (..., devices, share) each
    return [_whole(share, before, part, devices) for share, part in zip(shares, parts, strict=True)]


def sum_projections(*projections: tuple[nnx.Linear, Float[Array, "*batch _"]]) -> Float[Array, "*batch D"]:
    """The sum of ``layer(x)`` over pairs of a linear layer and its inputs, (..., inputs) -> (..., D).

    Over a tensor axis it is one product, so that devices all-reduce once.
    """
    devices = _tensor_devices()
    if devices == 1:
        return reduce(operator.add, (layer(x) for layer, x in projections))
    rows, kernels, biases = [], [], []
    for layer, x in projections:
        bias = None if layer.bias is None else layer.bias[...]
        x, kernel, bias = layer.promote_dtype((as_rows(x), layer.kernel[...], bias), dtype=layer.dtype)
        rows.append(x.reshape(*x.shape[:-1], devices, -1))
        kernels.append(kernel.reshape(devices, -1, kernel.shape[-1]))
        biases.append(bias)
    first, x = projections[0]
    y = jnp.tensordot(jnp.concat(rows, axis=-1), jnp.concat(kernels, axis=1), 2, precision=first.precision)
    y = reduce(operator.add, (bias for bias in biases if bias is not None), y)
    return y.reshape(*x.shape[:-1], -1)


def inputs_cut(inputs: int, mesh: Mesh | AbstractMesh) -> str | tuple[str, str] | None:
    """Mesh axes that shard the inputs of a packed kernel."""
    fsdp, tensor = (mesh.shape.get(axis, 1) for axis in (FSDP, TENSOR))
    if tensor == 1 or inputs % tensor:
        return None
    return (FSDP, TENSOR) if fsdp > 1 and inputs % (fsdp * tensor) == 0 else TENSOR


def apart(x: Float[Array, "parts ..."]) -> Sequence[Array]:
    """The arrays along the first axis.

    For TPUs so that their gradients are joined: by itself JAX pads each of them with zeros and adds them up.
    """
    if platform() != "tpu":
        return list(x)
    return [each[0] for each in jax.lax.split(x, (1,) * x.shape[0])]


@dataclass(frozen=True)
class _Part:
    """One of the arrays in a layer's outputs: hidden units (M,), or heads (..., h, d)."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def sharded(self) -> int:
        """The axis that is sharded: hidden units or heads."""
        return max(len(self.shape) - 2, 0)


def _tensor_devices() -> int:
    return jax.sharding.get_abstract_mesh().shape.get(TENSOR, 1)


def _split(y: Array, parts: Sequence[_Part]) -> list[Array]:
    return [y] if len(parts) == 1 else jnp.split(y, _offsets([part.size for part in parts]), axis=-1)


def _offsets(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:at]) for at in range(1, len(sizes))]


def _by_device(values: Array, parts: Sequence[_Part], devices: int) -> Array:
    """(..., outputs) -> (..., devices, outputs / devices): for each device, its share of every part, side by side."""
    before = values.shape[:-1]
    axes = inputs_cut(before[0], jax.sharding.get_abstract_mesh()) if before else None
    if isinstance(axes, tuple) and FSDP not in image_axes():  # gathered already
        axes = TENSOR
    # Reordered in place: a kernel sharded along its inputs, a replicated bias.
    values = jax.lax.with_sharding_constraint(values, PartitionSpec(*[axes] * len(before), None))
    shares = []
    for part, y in zip(parts, _split(values, parts), strict=True):
        shape = (math.prod(part.shape[: part.sharded]), devices, -1)
        shares.append(jnp.moveaxis(y.reshape(*before, *shape), -2, len(before)).reshape(*before, devices, -1))
    # If possible, the all-to-all comes before FSDP's all-gather, and in the backward pass after its reduce-scatter.
    first = FSDP if isinstance(axes, tuple) else None
    spec = PartitionSpec(*[first] * len(before), TENSOR, None)
    together = jnp.concat(shares, axis=-1)
    # Sharded as before until here: jax 0.12's partitioner would reshard inside the reordering, by an all-gather.
    together = jax.lax.with_sharding_constraint(together, PartitionSpec(*[axes] * len(before), None, None))
    return jax.lax.with_sharding_constraint(together, spec)


def _whole(share: Array, before: tuple[int, ...], part: _Part, devices: int) -> Array:
    """(..., devices, share) -> (..., *shape)."""
    y = share.reshape(*before, devices, math.prod(part.shape[: part.sharded]), -1)
    return jnp.moveaxis(y, len(before), -2).reshape(*before, *part.shape)
