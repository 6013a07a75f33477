"""Memory in huge pages for commands that compute for long."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

SUBCOMMANDS = ("train", "evaluate")
VARIABLE = "GLIBC_TUNABLES"
_SETTING = "glibc.malloc.hugetlb=1"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def ask_for_huge_pages(args: Sequence[str]) -> None:
    """Starts this process anew where the C library's allocator can be told to ask for huge pages, and is not yet.

    XLA gives its working memory back after every step: of ordinary pages the system clears some hundred thousand for
    the next, a quarter of a ViT-S training step on a CPU (docs/performance-notes.md). glibc reads the setting at the
    start of a process and never again. A setting of the user's own stays.

    Args:
        args: of the command, after its name.
    """
    if (
        VARIABLE in os.environ
        or args[:1] not in [[name] for name in SUBCOMMANDS]
        or not sys.platform.startswith("linux")
    ):
        return
    try:
        offered = "[never]" not in _KERNEL.read_text()
        glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError):
        return
    if offered and glibc:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: _SETTING})
