"""The machine and the versions of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "timm", "transformers", "numpy", "pillow")


def machine() -> dict[str, str]:
    """Facts by name, for the record and the page."""
    return {
        "processor": _processor() or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "huge pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "compiler": _first_line(["g++", "--version"]),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def load() -> float:
    """Mean number of processes that ran or waited in the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    """Name, family and model: a virtual machine may give the name alone of a whole line of processors."""
    found = {name: _after("/proc/cpuinfo", name) for name in ("model name", "cpu family", "model\t")}
    name, family, model = found.values()
    return f"{name}, family {family} model {model}" if family and model else name


def _after(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _chosen(path: str) -> str:
    """The word in brackets, of a file in /sys that lists choices."""
    return Path(path).read_text().partition("[")[2].partition("]")[0] if Path(path).exists() else "unknown"


def _first_line(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        return "none"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
