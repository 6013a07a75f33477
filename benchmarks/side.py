"""One side of a comparison, for modules that build one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


class UnavailableError(Exception):
    """This machine lacks what the side needs; the message says what. The comparison continues without it."""


BEGUN = "first call"
"""A part of a side that tells: seconds of the first call, which traces and compiles, and leaves the step running."""


@dataclass(frozen=True)
class Side:
    """Something built once in its own process and then timed on request."""

    parts: Mapping[str, Callable[[int], float | None]]
    """What can be timed, by name. Each runs the given number of times, to completion; one that times itself returns the
    seconds."""
    answers: Callable[[], Mapping[str, np.ndarray]] = dict
    """Its output, which is compared with the other sides before anything is timed."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that are stored with the measurements."""


def import_library(name: str) -> Any:
    """
    Raises:
        UnavailableError: whatever its import raises: torchvision, which timm imports, fails in many ways beside another
            torch.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UnavailableError(f"{name} cannot be imported: {' '.join(str(error).split())}") from error


def threads() -> int:
    """Cores that this process may use: the size of XLA's pool and of PyTorch's."""
    return len(os.sched_getaffinity(0))


def peak_memory() -> int:
    """The most bytes that this process has had resident, mapped files included (VmHWM)."""
    return _status("VmHWM")


def resident_memory() -> int:
    """The bytes that this process has resident now, mapped files included (VmRSS)."""
    return _status("VmRSS")


def _status(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024
