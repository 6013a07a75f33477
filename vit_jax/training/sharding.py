"""Where parameters and batches lie: data, FSDP and tensor axes of one mesh, by the parameters' paths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vit_jax.training.stacked import STACKED
from vit_spec import ViTConfig, VitportError

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))
"""A batch is cut along both: what FSDP gathers, it gathers for pictures of its own."""
_COLUMNS = ("attn/qkv", "mlp/fc1", "mlp/fc1_g", "mlp/fc1_x", "attn_pool/kv", "attn_pool/q")
"""Layers whose outputs are cut among the devices of the tensor axis (Shoeybi et al. 2019, section 3)."""
_ROWS = ("attn/proj", "mlp/fc2", "attn_pool/proj")
"""Layers whose inputs are."""
_SMALL = 2**10
"""Parameters with fewer values are the same everywhere: to gather them costs more than to hold them."""


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis; -1 for what is left."""

    data: int = -1
    """Parts that a batch is cut into; -1: the devices that are left."""
    fsdp: int = 1
    """Parts that parameters, moments and batches are cut into."""
    tensor: int = 1
    """Parts that heads and MLPs are cut into."""


def make_mesh(shape: MeshShape, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over devices: ``None`` means all of all processes.

    Raises:
        VitportError: if the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [shape.data, shape.fsdp, shape.tensor]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise VitportError(f"mesh {_words(sizes)} leaves more than one axis open: give every axis but one a size.")
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        if len(devices) % known:
            raise VitportError(
                f"mesh {_words(sizes)} takes a multiple of {known} devices, and there are {len(devices)}: choose axes "
                "that divide them."
            )
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        raise VitportError(
            f"mesh {_words(sizes)} takes {math.prod(sizes)} devices, and there are {len(devices)}: choose axes whose "
            "product that is, or -1 for one of them."
        )
    return Mesh(np.array(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def _words(sizes: Sequence[int]) -> str:
    return ",".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))


def partition(path: str, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """How one parameter is cut.

    The tensor axis takes the outputs of layers in front of heads and hidden units and the inputs of those behind them;
    FSDP takes the longest axis that is left and that it divides. What neither divides stays whole. Stacked blocks are
    cut each as a single one is.
    """
    if path.startswith(STACKED):
        return PartitionSpec(None, *partition(path.replace("*", "0"), shape[1:], mesh))
    axes: list[Any] = [None] * len(shape)
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    layer, _, leaf = path.rpartition("/")
    if tensor > 1 and leaf in ("kernel", "bias"):
        if layer.endswith(_COLUMNS) and shape[-1] % tensor == 0:
            axes[-1] = "tensor"
        elif layer.endswith(_ROWS) and leaf == "kernel" and shape[0] % tensor == 0:
            axes[0] = "tensor"
    if fsdp > 1 and math.prod(shape) >= _SMALL:
        free = [at for at, axis in enumerate(axes) if axis is None and shape[at] % fsdp == 0]
        if free:
            axes[max(free, key=lambda at: shape[at])] = "fsdp"
    return PartitionSpec(*axes)


def shardings(tree: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """Path → sharding, for parameters or their shapes."""
    return {path: NamedSharding(mesh, partition(path, leaf.shape, mesh)) for path, leaf in tree.items()}


def like_params(tree: Any, params: Mapping[str, Any], mesh: Mesh) -> Any:
    """Shardings of an optimizer's state: each moment lies as its parameter does, everything else everywhere.

    Args:
        tree: the state, or its shapes; moments are dictionaries with the parameters' paths.
        params: path → array or shape.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        keys = [getattr(entry, "key", None) for entry in path]
        owner = next((key for key in reversed(keys) if isinstance(key, str) and key in params), None)
        same = owner is not None and tuple(leaf.shape) == tuple(params[owner].shape)
        return NamedSharding(mesh, partition(owner, leaf.shape, mesh) if owner and same else PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, tree)


def check_divides(config: ViTConfig, batch: int, accumulation: int, mesh: Mesh | AbstractMesh) -> None:
    """Everything that must divide, before anything is compiled.

    Raises:
        VitportError: naming the first that does not.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch % (parts * accumulation):
        raise VitportError(
            f"A batch of {batch} does not divide into {accumulation} parts on {parts} devices: choose a multiple of "
            f"{parts * accumulation}."
        )
    tensor = mesh.shape["tensor"]
    for name, value in {"num_heads": config.num_heads, "the MLP's width": config.hidden_dim}.items():
        if value % tensor:
            raise VitportError(f"mesh tensor={tensor} does not divide {name} {value}: choose a divisor.")
