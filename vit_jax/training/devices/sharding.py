"""How parameters and batches are sharded over the data, FSDP and tensor axes of one mesh."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vit_jax.layers.xla.axes import DATA, FSDP, TENSOR
from vit_jax.layers.xla.packed import inputs_cut
from vit_jax.training.recipe.execution import MeshShape
from vit_jax.training.step.stacked import is_stacked, parameter_at
from vit_spec import Config, Parameter, VitportError, block_sizes, segments

AXES = (DATA, FSDP, TENSOR)
BATCH = PartitionSpec((DATA, FSDP))
"""Both axes shard a batch: each device gathers parameters for its own images."""
_SMALL = 2**10
"""Parameters with fewer values are replicated: gathering them costs more than holding them."""


def make_mesh(shape: MeshShape, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over devices.

    Args:
        devices: in this order, ``tensor`` innermost. ``None`` means all devices of all processes, as
            :func:`mesh_by_network` arranges them.

    Raises:
        VitportError: if the axes do not multiply to the number of devices.
    """
    if devices is None:
        return mesh_by_network(shape, jax.devices())
    return _mesh(np.array(devices).reshape(axis_sizes(shape, len(devices))))


def mesh_by_network(shape: MeshShape, devices: Sequence[Any]) -> Mesh:
    """A mesh over devices, in an order that makes neighbours on the mesh neighbours on their network, as far as JAX
    knows it.

    Raises:
        VitportError: as :func:`make_mesh` does.
    """
    return _mesh(_by_network(devices, axis_sizes(shape, len(devices))))


def _mesh(devices: np.ndarray) -> Mesh:
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)


def axis_sizes(shape: MeshShape, devices: int) -> list[int]:
    """The devices along ``data``, ``fsdp`` and ``tensor``, -1 replaced by those that remain.

    Raises:
        VitportError: if the axes do not multiply to the number of devices.
    """
    sizes = [shape.data, shape.fsdp, shape.tensor]
    if any(size < 1 and size != -1 for size in sizes):
        raise VitportError(f"mesh {_words(sizes)} has an empty axis: give 1 or more, or -1 for the remaining devices.")
    if sizes.count(-1) > 1:
        raise VitportError(f"mesh {_words(sizes)} has more than one -1: give a size for every axis but one.")
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        if devices % known:
            raise VitportError(
                f"mesh {_words(sizes)} needs a multiple of {known} devices and has {devices}: choose axes that divide "
                f"{devices}."
            )
        sizes[sizes.index(-1)] = devices // known
    if math.prod(sizes) != devices:
        raise VitportError(
            f"mesh {_words(sizes)} needs {math.prod(sizes)} devices and has {devices}: choose axes whose product is "
            f"{devices}, or -1 for one of them."
        )
    return sizes


def _by_network(devices: Sequence[Any], sizes: Sequence[int]) -> np.ndarray:
    """Devices on the mesh: TPU slices or GPU nodes along the outermost axes, links within them along the innermost.
    CPUs stay in their order."""
    parts = left = len({getattr(device, "slice_index", 0) for device in devices})
    between = []
    for size in sizes:
        between.append(math.gcd(size, left))
        left //= between[-1]
    within = [size // part for size, part in zip(sizes, between, strict=True)]
    try:
        # Split: an axis of 64 on a 16 x 16 torus takes one of its axes and part of the other.
        if parts == 1:
            return mesh_utils.create_device_mesh(within, devices, allow_split_physical_axes=True)
        return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
    except (AssertionError, ValueError):  # some chips of a node, or slices of different shapes
        return np.array(devices).reshape(sizes)


def _words(sizes: Sequence[int]) -> str:
    return ",".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))


def partition(parameter: Parameter, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """How one parameter, of a single block, is sharded.

    The tensor axis shards the outputs of layers before attention heads and hidden units, and the inputs of layers after
    them. A packed kernel, whose shards of outputs would miss the boundaries of its parts, is sharded by inputs, along
    FSDP's axis too if both divide them (:mod:`vit_jax.layers.xla.packed`). FSDP shards the longest remaining axis
    that it divides. A parameter that neither divides is replicated.

    Args:
        shape: in JAX's layout.
    """
    axes: list[Any] = [None] * len(shape)
    tensor, fsdp = mesh.shape[TENSOR], mesh.shape[FSDP]
    split, kernel = parameter.split, parameter.is_kernel
    large = math.prod(shape) >= _SMALL
    if split == "columns" and tensor > 1 and shape[-1] % tensor == 0:
        axes[-1] = TENSOR
    elif split == "rows" and kernel and tensor > 1 and shape[0] % tensor == 0:
        axes[0] = TENSOR
    elif split == "packed" and kernel and large:
        axes[0] = inputs_cut(shape[0], mesh)
    if fsdp > 1 and large and not isinstance(axes[0], tuple):
        free = [at for at, axis in enumerate(axes) if axis is None and shape[at] % fsdp == 0]
        if free:
            axes[max(free, key=lambda at: shape[at])] = FSDP
    return PartitionSpec(*axes)


def shardings(tree: Mapping[str, Any], config: Config, mesh: Mesh) -> dict[str, NamedSharding]:
    """Path → sharding, for parameters or their shapes. Each of stacked blocks is sharded as a single one is."""
    return {path: NamedSharding(mesh, _spec(path, leaf.shape, config, mesh)) for path, leaf in tree.items()}


def like_params(tree: Any, params: Mapping[str, Any], config: Config, mesh: Mesh) -> Any:
    """Shardings of an optimizer's state: each moment is sharded like its parameter, the rest is replicated.

    Args:
        tree: the state, or its shapes; moments are dictionaries with the parameters' paths.
        params: path → array or shape.
        config: of the model.
        mesh: of the devices.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        keys = [getattr(entry, "key", None) for entry in path]
        owner = next((key for key in reversed(keys) if isinstance(key, str) and key in params), None)
        same = owner is not None and tuple(leaf.shape) == tuple(params[owner].shape)
        return NamedSharding(mesh, _spec(owner, leaf.shape, config, mesh) if owner and same else PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, tree)


def _spec(path: str, shape: Sequence[int], config: Config, mesh: Mesh) -> PartitionSpec:
    known = parameter_at(path, config)
    return (
        PartitionSpec(None, *partition(known, shape[1:], mesh)) if is_stacked(path) else partition(known, shape, mesh)
    )


def check_divides(config: Config, batch: int, accumulation: int, mesh: Mesh | AbstractMesh) -> None:
    """Checks, before anything is compiled, that the mesh divides batch, heads and MLP.

    Raises:
        VitportError: for the first number that it does not divide.
    """
    parts = mesh.shape["data"] * mesh.shape[FSDP]
    if batch % (parts * accumulation):
        raise VitportError(
            f"A batch of {batch} does not divide into {parts * accumulation} parts (devices {parts}, accumulation "
            f"{accumulation}): choose a multiple of {parts * accumulation}."
        )
    tensor = mesh.shape[TENSOR]
    for segment, sizes in zip(segments(config), block_sizes(config), strict=True):
        for name, value in {"num_heads": sizes.heads, "the MLP's width": sizes.hidden}.items():
            if value % tensor:
                where = f" in {segment.prefix}" if len(segments(config)) > 1 else ""
                raise VitportError(
                    f"mesh tensor={tensor} does not divide {name}{where}, {value}: choose a divisor of it."
                )
