"""Digests of large captures: what each stage computed, in some kilobytes, so that two runs can still be compared.

A digest holds the norm of an array and a random projection to 256 numbers: each element is added to one of them, with a
sign, both chosen by a hash of its place (Charikar, Chen & Farach-Colton 2002). The projection is linear, so the
difference of two digests is the digest of the difference, and its norm estimates the L2 distance: without bias in the
square, with a standard error of sqrt(1 / 512) of the distance, 4.4 %. Arrays of three and four axes are projected in
the orders that libraries differ in, so channels may be last or first, and heads split or joined.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conversion.containers.file_checks import first_line
from conversion.destination import writable_file, written_aside
from vit_spec import VitportError
from vit_spec.printable import printable

BUCKETS = 256
ERROR = 3 * (2 * BUCKETS) ** -0.5
"""Three standard errors of a distance, relative to it."""
_ORDERS = {3: ((0, 1, 2), (0, 2, 1)), 4: ((0, 1, 2, 3), (0, 2, 3, 1), (0, 2, 1, 3))}
_RECORD = "vitport_digest"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class DigestedStage:
    """One array."""

    shape: tuple[int, ...]
    dtype: str
    norm: float
    """L2."""
    sketches: np.ndarray
    """(orders of its axes, 256), in float64; the first is that of the array as it lies."""


@dataclass(frozen=True)
class Digest:
    """What one run computed, as :class:`vit_parity.capture.Capture` without the arrays."""

    title: str
    stages: dict[str, DigestedStage]
    """In the order of computation."""
    facts: dict[str, str]


def digested(array: np.ndarray) -> DigestedStage:
    """The digest of an array of floating-point numbers."""
    wide = array.astype(np.float64)
    orders = _ORDERS.get(array.ndim, (tuple(range(array.ndim)),))
    norm = float(np.linalg.norm(wide))
    return DigestedStage(array.shape, array.dtype.name, norm, np.stack([_sketch(wide.transpose(it)) for it in orders]))


def digest_of(capture: Any) -> Digest:
    """Of a capture."""
    return Digest(capture.title, {name: digested(it) for name, it in capture.activations.items()}, capture.facts)


def distance(a: DigestedStage, b: DigestedStage) -> float:
    """Estimated L2 distance, in the axes in which the two are nearest."""
    if np.prod(a.shape) != np.prod(b.shape):
        return float("inf")
    found = [a.sketches[:1] - b.sketches, a.sketches - b.sketches[:1]]
    return min(float(np.linalg.norm(it)) for it in np.concatenate(found))


def save_digest(digest: Digest, path: Path) -> None:
    """Write a digest as ``.npz``.

    Raises:
        VitportError: for another ending, or a path that cannot be written.
    """
    if path.suffix != ".npz":
        raise VitportError(f"{path} is no file for a digest: its name must end in .npz.")
    stages = [{"name": name, "shape": it.shape, "dtype": it.dtype, "norm": it.norm, "orders": len(it.sketches)}
              for name, it in digest.stages.items()]  # fmt: skip
    record = {"version": 1, "title": digest.title, "facts": digest.facts, "stages": stages}
    writable_file(path)
    rows = np.concatenate([it.sketches for it in digest.stages.values()])
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_RECORD: np.array(json.dumps(record)), "sketches": rows})


def load_digest(path: Path) -> Digest | None:
    """Read what :func:`save_digest` wrote; ``None`` for any other file.

    Raises:
        VitportError: if it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if _RECORD not in file.files:
                return None
            record: Mapping[str, Any] = json.loads(str(file[_RECORD]))
            rows = file["sketches"]
    except Exception:  # whatever it is, it is no digest
        return None
    try:
        stages: dict[str, DigestedStage] = {}
        at = 0
        for it in record["stages"]:
            sketches = rows[at : at + it["orders"]]
            at += it["orders"]
            stages[printable(it["name"])] = DigestedStage(tuple(it["shape"]), it["dtype"], float(it["norm"]), sketches)
        facts = {printable(name): printable(value) for name, value in record["facts"].items()}
        return Digest(printable(record["title"]), stages, facts)
    except Exception as error:
        raise VitportError(f"{path} is a damaged digest ({first_line(error)}): write it again.") from error


def _sketch(array: np.ndarray) -> np.ndarray:
    flat, found = array.ravel(), np.zeros(BUCKETS)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        hashed = _hashed(np.arange(start, start + part.size, dtype=np.uint64))
        signs = 1.0 - 2.0 * (hashed >> np.uint64(63)).astype(np.float64)
        found += np.bincount((hashed & np.uint64(BUCKETS - 1)).astype(np.intp), signs * part, BUCKETS)
    return found


def _hashed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        z = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
