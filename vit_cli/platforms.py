"""Which devices JAX looks for, where libtpu is installed and the machine has no TPU."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

VARIABLE = "JAX_PLATFORMS"
_GOOGLE = "0x1ae0"
"""The vendor of TPUs on the PCI bus."""
_ROOT = Path("/")


def look_for_no_tpu() -> None:
    """Keep JAX on the CPU where there is nothing else, so that libtpu does not look for its chips.

    The extras ``aot-tpu`` and ``dev`` install libtpu for its compiler. JAX then asks it for TPUs, which it warns about
    on stderr. The variable is set only if no other device can be there: none of Google's on the PCI bus, no accelerator
    in ``/dev``, no variable about TPUs, no plug-in of JAX for GPUs or others. The user's own setting wins.
    """
    if VARIABLE in os.environ or any(name.startswith(("TPU_", "JAX_FORCE_TPU")) for name in os.environ):
        return
    if importlib.util.find_spec("libtpu") is None or has_accelerator() or has_plugins():
        return
    os.environ[VARIABLE] = "cpu"


def has_accelerator() -> bool:
    """Whether a TPU may be here, by what the system shows of its devices."""
    return any(_holds(_ROOT / "dev", ("accel*", "vfio/[0-9]*"))) or any(
        _GOOGLE in vendor.read_text() for vendor in _holds(_ROOT / "sys/bus/pci/devices", ("*/vendor",))
    )


def has_plugins() -> bool:
    """Whether JAX has plug-ins for other devices: modules of ``jax_plugins``, or entry points of that name."""
    return importlib.util.find_spec("jax_plugins") is not None or bool(entry_points(group="jax_plugins"))


def _holds(folder: Path, patterns: Iterable[str]) -> Iterable[Path]:
    return (path for pattern in patterns for path in folder.glob(pattern))
