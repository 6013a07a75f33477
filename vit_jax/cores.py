"""The processor's cores that this process may run on."""

from __future__ import annotations

import os


def cores() -> int:
    """Those that the process is bound to where the operating system tells, else all."""
    bound = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if bound is None else len(bound(0))
