"""Sides that compute next to nothing."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from benchmarks.side import Side, UnavailableError


def counting(start: int, breaks: bool = False) -> Side:
    """``add`` counts its runs up from ``start``, ``slow`` takes 10 ms, ``told`` says half a second."""
    total = [start]

    def add(count: int) -> None:
        if breaks:
            raise ValueError("broken on purpose")
        sys.stdout.write("noise\n")
        total[0] += count

    def answers() -> dict[str, np.ndarray]:
        return {"total": np.array([float(total[0])]), "variable": np.array([float(os.environ.get("ADDED", "nan"))])}

    parts = {"add": add, "slow": lambda count: time.sleep(0.01 * count), "told": lambda count: 0.5 * count}
    return Side(parts, answers, {"pid": os.getpid()})


def hungry(megabytes: int) -> Side:
    """``fill`` holds so much memory for a moment, ``rest`` none."""

    def fill(count: int) -> None:
        for _ in range(count):
            np.ones(megabytes * 125_000)

    return Side({"fill": fill, "rest": lambda count: None})


def missing() -> Side:
    """What is not there."""
    raise UnavailableError("there is no such library")
