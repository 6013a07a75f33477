"""The most memory that a part of a test takes.

``getrusage`` tells the most that the process ever had, and a process begins with its parent's: in a long run of tests
it never grows. Linux can forget its peak.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

_FORGET = Path("/proc/self/clear_refs")
_CAN_FORGET = os.access(_FORGET, os.W_OK)


def start() -> int:
    """Bytes that are resident now; the peak so far is forgotten, where that is possible."""
    if not _CAN_FORGET:
        return _ever()
    _FORGET.write_text("5")
    return _kilobytes("VmRSS:") << 10


def taken(since: int) -> int:
    """The most bytes that have been resident beyond what ``start`` returned."""
    return (_kilobytes("VmHWM:") << 10 if _CAN_FORGET else _ever()) - since


def _ever() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
