"""What speaks for each stage of B as the counterpart of each of A, all at once: models have thousands of stages."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vit_parity.porting.layouts import layouts, nearest
from vit_parity.porting.stages import ROOT

SAME_WEIGHTS, SAME_PARTS = 6.0, 0.5
"""What equal weights count, and the share of weights in common from which two modules with parts count as one."""
_BELOW, _EQUAL, _ALIKE, _KIND, _OTHER_KIND, _NUMBERS, _WORD, _SHAPE = 5.0, 8.0, 3.0, 2.0, -4.0, 1.0, 1.5, 0.5
_BOTH_OUTPUTS = 20.0
_SAMPLE = 4096
_DIGITS = 5
"""Of a cosine: enough to tell two stages apart, and the same in any order of summation."""


@dataclass(frozen=True)
class Stage:
    """What is known of one."""

    name: str
    array: np.ndarray
    kind: str | None
    norm: float
    weights: frozenset[tuple[int, float]]
    below: frozenset[tuple[int, float]]
    """Of a module with parts: its weights and theirs."""
    leaf: bool

    def shared(self, other: Stage) -> float:
        """Of the weights of two modules with parts, the share that both have."""
        both = frozenset() if self.leaf or other.leaf else self.below | other.below
        return len(self.below & other.below) / len(both) if both else 0.0

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Those of its name, but for those of words such as fc1."""
        return tuple(re.findall(r"\d+", re.sub(r"(?<=[a-z])\d+(?=$|\.)", "", self.name)))

    @cached_property
    def is_block(self) -> bool:
        """Whether it is one of several, by its name."""
        return re.search(r"[.\[]\d+\]?$", self.name) is not None

    @cached_property
    def words(self) -> frozenset[str]:
        """Those of its name."""
        return frozenset(re.findall(r"[a-z]+\d*", self.name.lower().replace("_", ".")))


def prints_of(arrays: Mapping[str, np.ndarray]) -> frozenset[tuple[int, float]]:
    """What of weights no change of axes alters; constant ones tell nothing."""
    wide = [np.asarray(array, np.float64) for array in arrays.values() if array.dtype.kind == "f" and array.ndim]
    return frozenset((array.size, float(f"{(array**2).sum():.5g}")) for array in wide if array.size and np.ptp(array))


def scored(first: Sequence[Stage], second: Sequence[Stage], near: float) -> tuple[np.ndarray, np.ndarray]:
    """For each stage of A (rows) and of B (columns) what speaks for the pair, and the cosine of the angle between them.

    Args:
        first: stages of A.
        second: stages of B.
        near: the relative L2 distance up to which values count as equal.

    Returns:
        The scores, minus infinity where the two cannot be a pair, and the cosines.
    """
    possible, alike = _cosines(first, second)
    if not possible.any():
        return np.full(possible.shape, -np.inf), alike

    def both(tell: Callable[[Stage], Any]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([tell(it) for it in first])[:, None], np.array([tell(it) for it in second])[None]

    def same(tell: Callable[[Stage], Hashable]) -> np.ndarray:
        numbers: dict[Hashable, int] = {}
        a, b = both(lambda it: numbers.setdefault(tell(it), len(numbers)))
        return a == b

    root_a, root_b = both(lambda it: it.name == ROOT)
    possible &= root_a == root_b
    alike[root_a != root_b] = 0.0
    norm_a, norm_b = both(lambda it: it.norm)
    equal = possible & (alike > 1 - 1e-3) & (np.abs(norm_a - norm_b) <= near * norm_a)
    for at, to in zip(*np.nonzero(equal), strict=True):
        found = nearest(first[at].array, second[to].array)
        equal[at, to] = found is not None and found[1] <= near
    shared = _share(*(_entries(of, lambda it: () if it.leaf else it.below) for of in (first, second)))
    kind_a, kind_b = both(lambda it: it.kind is not None)
    named = np.logical_and(*both(lambda it: bool(it.words)))
    block_a, block_b = both(lambda it: it.is_block)
    # A block against a part of one.
    other_level = named & ~kind_a & ~kind_b & (block_a != block_b) & ~equal & (shared < SAME_PARTS)
    kinds = np.where(same(lambda it: it.kind), _KIND, _OTHER_KIND)

    scores = _BOTH_OUTPUTS * (root_a & root_b) + _EQUAL * equal + _ALIKE * np.maximum(alike, 0.0)
    scores += SAME_WEIGHTS * (_common(*(_entries(of, lambda it: it.weights) for of in (first, second))) > 0)
    scores += _BELOW * shared
    scores += np.where(kind_a & kind_b, kinds, _SHAPE * same(lambda it: it.leaf))
    scores += _NUMBERS * (named & same(lambda it: it.numbers))  # those of a torch.nn.Sequential count its own modules
    scores += _OTHER_KIND * other_level
    scores += _WORD * named * _share(*(_entries(of, lambda it: it.words) for of in (first, second)))
    scores += _SHAPE * same(lambda it: it.array.shape)
    return np.where(possible, scores, -np.inf), alike


def _cosines(first: Sequence[Stage], second: Sequence[Stage]) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs have a layout, and the largest cosine of any, by some thousand of their numbers."""
    possible = np.zeros((len(first), len(second)), bool)
    alike = np.zeros(possible.shape)
    rows, columns = ({shape: [at for at, it in enumerate(of) if it.array.shape == shape]
                      for shape in dict.fromkeys(it.array.shape for it in of)} for of in (first, second))  # fmt: skip
    for shape, at in rows.items():
        for other, to in columns.items():
            fitting = list(layouts(shape, other))
            if not fitting:
                continue
            y = _directions(second[it].array for it in to)
            found = [_directions(layout.to_b(first[it].array) for it in at) @ y.T for layout in fitting]
            possible[np.ix_(at, to)] = True
            alike[np.ix_(at, to)] = np.round(np.max(found, 0).astype(np.float64), _DIGITS)
    return possible, alike


def _directions(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Some thousand numbers of each, to length 1."""
    kept = np.stack([array.reshape(-1)[:: max(1, array.size // _SAMPLE)] for array in arrays])
    size = np.linalg.norm(kept, axis=1, keepdims=True)
    return (kept / np.where(size, size, 1.0)).astype(np.float32)


def _entries(of: Sequence[Stage], tell: Callable[[Stage], Iterable[Hashable]]) -> list[frozenset[Hashable]]:
    return [frozenset(tell(it)) for it in of]


def _common(first: Sequence[frozenset[Hashable]], second: Sequence[frozenset[Hashable]]) -> np.ndarray:
    """How many entries each of the one side has in common with each of the other."""
    count = np.zeros((len(first), len(second)))
    places: tuple[dict[Hashable, list[int]], ...] = ({}, {})
    for having, of in zip(places, (first, second), strict=True):
        for at, entries in enumerate(of):
            for entry in entries:
                having.setdefault(entry, []).append(at)
    for entry, at in places[0].items():
        if to := places[1].get(entry):
            count[np.ix_(at, to)] += 1
    return count


def _share(first: Sequence[frozenset[Hashable]], second: Sequence[frozenset[Hashable]]) -> np.ndarray:
    """The same as a share of all entries of the two; 0 where there are none."""
    common = _common(first, second)
    size_a, size_b = (np.array([len(entries) for entries in of]) for of in (first, second))
    every = size_a[:, None] + size_b[None] - common
    return common / np.where(every, every, 1)
