"""Huge memory pages for commands that compute for a long time."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

SUBCOMMANDS = ("train", "evaluate")
VARIABLE = "GLIBC_TUNABLES"
SETTING = "glibc.malloc.hugetlb=1"
_SINCE = (2, 35)
"""The first version of glibc with this setting."""
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def ask_for_huge_pages(args: Sequence[str]) -> None:
    """Restart this process with huge pages, if the C library's allocator offers them and is not set to use them.

    XLA frees its working memory after every step. With ordinary pages the system clears some hundred thousand for the
    next, a sixth of a ViT-S training step on a CPU (docs/performance-notes.md). glibc reads the setting only
    when a process starts. The user's own setting wins; if the restart fails, the process continues without.

    Args:
        args: of the command, after its name.
    """
    asked = args[:1] in [[name] for name in SUBCOMMANDS] and not {"-h", "--help"} & set(args)
    if asked and VARIABLE not in os.environ and sys.executable and huge_pages_offered():
        with contextlib.suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: SETTING})


def huge_pages_offered() -> bool:
    """Whether the kernel and the C library support them."""
    try:
        library = re.fullmatch(r"glibc (\d+)\.(\d+).*", os.confstr("CS_GNU_LIBC_VERSION") or "")
        offered = "[never]" not in _KERNEL.read_text()
    except (OSError, ValueError, AttributeError):  # another system
        return False
    return offered and library is not None and (int(library[1]), int(library[2])) >= _SINCE
