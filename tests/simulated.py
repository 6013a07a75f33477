"""The environment of a process that sees several CPU devices."""

from __future__ import annotations

import os

QUICK = "--xla_backend_optimization_level=0"
"""For programs that compile much and compute little: without LLVM's optimization they take 0.6 of the time. What
devices exchange, and how arrays are cut, is decided before it; last bits differ from those with it."""


def simulated(devices: int, *flags: str) -> dict[str, str]:
    """This process's variables, with so many devices and XLA's ``flags``."""
    found = " ".join((f"--xla_force_host_platform_device_count={devices}", *flags))
    return os.environ | {"XLA_FLAGS": found, "JAX_PLATFORMS": "cpu"}
