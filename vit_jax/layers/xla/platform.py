"""The kind of device that the function being traced is for."""

from __future__ import annotations

import jax
from jax.sharding import Mesh


def platform() -> str:
    """``cpu``, ``gpu`` or ``tpu``: of the mesh in context (``jax.set_mesh``, ``jax.sharding.use_abstract_mesh``), or of
    JAX's default devices without one. A program for devices that are not here is traced within its mesh."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else _general(device.platform)


def platform_of(mesh: Mesh) -> str:
    """The same of a mesh's devices."""
    return _general(mesh.devices.flat[0].platform)


def _general(name: str) -> str:
    return "gpu" if name in ("cuda", "rocm") else name
