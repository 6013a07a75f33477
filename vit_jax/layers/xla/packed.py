"""Layers over a mesh with a tensor axis, where heads and hidden units of several arrays lie side by side in one kernel.

Outputs of such a layer, cut into as many parts as there are devices along the axis, are cut in other places than heads
and hidden units are, and would be gathered whole to be cut anew. So each device is given the columns of its own heads
and hidden units: the kernel lies cut along its inputs, and devices exchange parts of their parts of it, which is less
than the activations are and can go on beside other layers. Without such a mesh the layers compute what they always do.
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
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from vit_jax.layers.xla.rows import as_rows

FSDP, TENSOR = "fsdp", "tensor"
"""Axes of the mesh in context (``jax.set_mesh``, ``jax.sharding.use_abstract_mesh``): parameters are cut along the one,
heads and hidden units along the other."""


@dataclass(frozen=True)
class Part:
    """One of the arrays that a layer gives."""

    shape: tuple[int, ...]
    cut: int
    """The axis of heads or hidden units."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def unpacked(layer: nnx.Linear, x: jax.Array, *parts: Part) -> list[jax.Array]:
    """``layer(x)``, taken apart: (..., inputs) -> (..., *shape) for each part.

    Args:
        parts: as they lie side by side in the layer's outputs; their cut axes are multiples of the tensor axis.
    """
    before = x.shape[:-1]
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


def summed(*layers: tuple[nnx.Linear, jax.Array]) -> jax.Array:
    """The sum of what layers give, of (..., inputs) each -> (..., outputs).

    Over a tensor axis it is one product, so that devices sum once.
    """
    devices = _tensor_devices()
    if devices == 1:
        return reduce(operator.add, (layer(x) for layer, x in layers))
    rows, kernels, biases = [], [], []
    for layer, x in layers:
        bias = None if layer.bias is None else layer.bias[...]
        x, kernel, bias = layer.promote_dtype((as_rows(x), layer.kernel[...], bias), dtype=layer.dtype)
        rows.append(x.reshape(*x.shape[:-1], devices, -1))
        kernels.append(kernel.reshape(devices, -1, kernel.shape[-1]))
        biases.append(bias)
    y = jnp.tensordot(jnp.concat(rows, axis=-1), jnp.concat(kernels, axis=1), 2, precision=layers[0][0].precision)
    y = reduce(operator.add, (bias for bias in biases if bias is not None), y)
    return y.reshape(*layers[0][1].shape[:-1], -1)


def inputs_cut(inputs: int, mesh: Mesh | AbstractMesh) -> str | tuple[str, str] | None:
    """Axes of the mesh along which the inputs of a packed kernel are cut."""
    fsdp, tensor = (mesh.shape.get(axis, 1) for axis in (FSDP, TENSOR))
    if tensor == 1 or inputs % tensor:
        return None
    return (FSDP, TENSOR) if fsdp > 1 and inputs % (fsdp * tensor) == 0 else TENSOR


def _tensor_devices() -> int:
    return jax.sharding.get_abstract_mesh().shape.get(TENSOR, 1)


def _split(y: jax.Array, parts: Sequence[Part]) -> list[jax.Array]:
    return [y] if len(parts) == 1 else jnp.split(y, _offsets([part.size for part in parts]), axis=-1)


def _offsets(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:at]) for at in range(1, len(sizes))]


def _by_device(values: jax.Array, parts: Sequence[Part], devices: int) -> jax.Array:
    """(..., outputs) -> (..., devices, outputs / devices), each device's share of every part side by side."""
    before = values.shape[:-1]
    axes = inputs_cut(before[0], jax.sharding.get_abstract_mesh()) if before else None
    # Taken apart where it lies: a kernel cut along its inputs, a bias whole.
    values = jax.lax.with_sharding_constraint(values, PartitionSpec(*[axes] * len(before), None))
    shares = []
    for part, y in zip(parts, _split(values, parts), strict=True):
        shape = (math.prod(part.shape[: part.cut]), devices, -1)
        shares.append(jnp.moveaxis(y.reshape(*before, *shape), -2, len(before)).reshape(*before, devices, -1))
    # Exchanged before FSDP gathers it, where it can be; a gradient after it is scattered.
    first = FSDP if isinstance(axes, tuple) else None
    spec = PartitionSpec(*[first] * len(before), TENSOR, None)
    return jax.lax.with_sharding_constraint(jnp.concat(shares, axis=-1), spec)


def _whole(share: jax.Array, before: tuple[int, ...], part: Part, devices: int) -> jax.Array:
    """(..., devices, share) -> (..., *shape)."""
    y = share.reshape(*before, devices, math.prod(part.shape[: part.cut]), -1)
    return jnp.moveaxis(y, len(before), -2).reshape(*before, *part.shape)
