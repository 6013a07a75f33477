"""The process of one side of a comparison: ``python -m benchmarks.worker MODULE:FUNCTION JSON``.

The function is called with the JSON object as its arguments and gives a ``Side``. Then each line on stdin is a request,
and each line on stdout an answer, both JSON. What libraries print goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.side import Side, UnavailableError, peak_memory


def build(target: str, arguments: dict[str, Any]) -> Side:
    """Call ``MODULE:FUNCTION``."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)(**arguments)


def answer(side: Side, request: dict[str, Any]) -> dict[str, Any]:
    """What one request asks for.

    ``run``: seconds of one of ``count`` runs of a part, and the most bytes that were resident meanwhile.
    ``answers``: writes the side's answers into a ``.npz`` file.
    """
    if request["do"] == "answers":
        np.savez(request["path"], allow_pickle=False, **side.answers())
        return {}
    forget_peak()
    start = time.perf_counter()
    own = side.parts[request["part"]](request["count"])
    seconds = time.perf_counter() - start if own is None else own
    return {"seconds": seconds / request["count"], "peak": peak_memory()}


def forget_peak() -> None:
    """Reset the kernel's count of this process's peak, if permitted (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Serve until stdin ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(values: dict[str, Any]) -> None:
        replies.write(json.dumps(values) + "\n")

    try:
        side = build(sys.argv[1], json.loads(sys.argv[2]))
    except (ImportError, UnavailableError) as error:
        tell({"missing": " ".join(str(error).split())})
        return
    tell({"facts": dict(side.facts)})
    for line in sys.stdin:
        tell(answer(side, json.loads(line)))


if __name__ == "__main__":
    main()
