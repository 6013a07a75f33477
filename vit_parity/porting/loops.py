"""What is tagged in the body of a scan: stacked as the scan returns it, and step by step as it is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vit_parity.porting.stages import Key, Values


@dataclass(frozen=True)
class Loop:
    """What is tagged in the body of a scan."""

    length: int
    order: list[Key | Loop]


def unstacked(order: Sequence[Key | Loop], found: Mapping[Key, np.ndarray]) -> Values:
    """Step by step what scans stacked: ``name[0]``, ``name[1]``, … in the order of computation."""
    values: Values = {}
    for entry in order:
        if isinstance(entry, tuple):
            values[entry] = found[entry]
            continue
        keys = list(keys_of(entry.order))
        for at in range(entry.length):
            inner = unstacked(entry.order, {key: found[key][at] for key in keys})
            values |= {(f"{_indexed(name, at)}", slot): array for (name, slot), array in inner.items()}
    return values


def stacked(order: Sequence[Key | Loop], values: Mapping[Key, np.ndarray]) -> Values:
    """The inverse of :func:`unstacked`."""
    found: Values = {}
    for entry in order:
        if isinstance(entry, tuple):
            found[entry] = values[entry]
            continue
        steps = [
            stacked(entry.order, {(_without(name, at), slot): array for (name, slot), array in values.items()
                                  if _without(name, at) != name})
            for at in range(entry.length)
        ]  # fmt: skip
        found |= {key: np.stack([step[key] for step in steps]) for key in keys_of(entry.order)}
    return found


def keys_of(order: Sequence[Key | Loop]) -> list[Key]:
    """What is tagged, in the order of computation."""
    return [key for entry in order for key in ([entry] if isinstance(entry, tuple) else keys_of(entry.order))]


def chosen(order: Sequence[Key | Loop], name: Callable[[Key], Key | None]) -> list[Key | Loop]:
    """What of an order gets another name; the rest is left out."""
    kept: list[Key | Loop] = []
    for entry in order:
        if isinstance(entry, Loop):
            inner = chosen(entry.order, name)
            kept += [Loop(entry.length, inner)] if inner else []
        elif (other := name(entry)) is not None:
            kept.append(other)
    return kept


def _indexed(name: str, at: int) -> str:
    """The outermost scan's step stands first: ``name[outer][inner]``."""
    stem, bracket, rest = name.partition("[")
    return f"{stem}[{at}]{bracket}{rest}"


def _without(name: str, at: int) -> str:
    return name.replace(f"[{at}]", "", 1) if f"{name.partition('[')[0]}[{at}]" == name[: name.find("]") + 1] else name
