"""The environment of a process that sees several CPU devices."""

from __future__ import annotations

import os


def simulated(devices: int) -> dict[str, str]:
    """This process's variables, with so many devices.

    Such processes compile much and compute little: without LLVM's optimization that takes 0.6 of the time. What devices
    exchange, and how arrays are cut, is decided before it.
    """
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
