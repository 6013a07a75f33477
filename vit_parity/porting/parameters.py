"""Which parameter of B is which of A, by their values.

Names and axes differ, values do not: they were copied. Where several are equal, as the scales of fresh norms are, the
stages that they belong to decide, then names, then the gradients themselves. One side may hold several in one array
(queries, keys and values, or all layers of a scan): then a piece is compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vit_parity.porting.layouts import Layout, apart, layouts
from vit_parity.porting.pairs import Pair
from vit_parity.porting.stages import ROOT, output_key

_NEAR = 1e-6
"""Relative L2 distance up to which values count as equal; it decides no verdict."""
_EQUAL, _STAGE, _WORDS, _NUMBERS, _ALIKE = 100.0, 10.0, 2.0, 2.0, 1.0
_MOST_PIECES = 512


@dataclass(frozen=True)
class Piece:
    """A parameter, or a part of one along an axis."""

    name: str
    axis: int = 0
    start: int = 0
    stop: int | None = None

    def of(self, array: np.ndarray) -> np.ndarray:
        """The piece of the parameter's values or gradient."""
        return array if self.stop is None else array[(slice(None),) * self.axis + (slice(self.start, self.stop),)]

    @property
    def stage(self) -> str:
        """The stage that holds it: the module, or its step in a scan."""
        owner = self.name.rpartition(".")[0] or ROOT
        scanned = self.stop is not None and self.axis == 0 and self.stop == self.start + 1
        return f"{owner}[{self.start}]" if scanned else owner

    def __str__(self) -> str:
        if self.stop is None:
            return self.name
        return f"{self.name}[{':, ' * self.axis}{self.start}:{self.stop}]"


@dataclass(frozen=True)
class ParameterPair:
    """Two that are the same."""

    a: Piece
    b: Piece
    layout: Layout
    shape: tuple[int, ...]
    """Of A's piece."""

    def to_a(self, array: np.ndarray) -> np.ndarray:
        """Of what belongs to B's parameter, the piece, in A's axes."""
        return self.layout.to_a(self.b.of(array), self.shape)


Arrays = Mapping[str, np.ndarray]


def pair_parameters(
    a: Arrays, b: Arrays, of_a: Arrays, of_b: Arrays, pairs: Sequence[Pair]
) -> tuple[tuple[ParameterPair, ...], tuple[str, ...], tuple[str, ...]]:
    """Pair the parameters of two models.

    Args:
        a: parameter → value.
        b: the same of the other.
        of_a: parameter → gradient, to tell equal ones apart.
        of_b: the same of the other.
        pairs: of stages.

    Returns:
        The pairs in A's order, and the names that have no counterpart in A, and in B.
    """
    stages = {(output_key(pair.a)[0], output_key(pair.b)[0]) for pair in pairs}
    found = _matched(list(map(Piece, a)), list(map(Piece, b)), (a, of_a), (b, of_b), stages)
    rest_a = [name for name in a if name not in {it.a.name for it in found}]
    rest_b = [name for name in b if name not in {it.b.name for it in found}]
    for wholes, parts, swapped in ((rest_b, rest_a, False), (rest_a, rest_b, True)):
        held, others = (a, b) if swapped else (b, a)
        for whole in list(wholes):
            pieces = _pieces(Piece(whole), held[whole], [others[name] for name in parts])
            singles = list(map(Piece, parts))
            first, second = (pieces, singles) if swapped else (singles, pieces)
            more = _matched(first, second, (a, of_a), (b, of_b), stages)
            more = [it for it in more if apart(it.layout.to_b(it.a.of(a[it.a.name])), it.b.of(b[it.b.name])) <= _NEAR]
            if len(more) == len(pieces) > 0:
                found += more
                wholes.remove(whole)
                taken = {(it.b if swapped else it.a).name for it in more}
                parts[:] = [name for name in parts if name not in taken]
    order = {name: at for at, name in enumerate(a)}
    found.sort(key=lambda it: (order[it.a.name], it.a.start))
    return tuple(found), tuple(rest_a), tuple(rest_b)


def _matched(
    first: Sequence[Piece], second: Sequence[Piece], of_a: tuple[Arrays, Arrays], of_b: tuple[Arrays, Arrays],
    stages: set[tuple[str, str]]
) -> list[ParameterPair]:  # fmt: skip
    """The pairs for which most speaks, each piece once."""
    from scipy.optimize import linear_sum_assignment

    if not first or not second:
        return []
    a, b = ([piece.of(of[0][piece.name]) for piece in side] for side, of in ((first, of_a), (second, of_b)))
    norms = [[float(np.linalg.norm(np.asarray(array, np.float64))) for array in side] for side in (a, b)]
    scores = np.zeros((len(first), len(second)))
    fitting: dict[tuple[int, int], list[Layout]] = {}
    for at, x in enumerate(a):
        for to, y in enumerate(b):
            together = (first[at].stage, second[to].stage) in stages
            close = abs(norms[0][at] - norms[1][to]) <= 1e-4 * norms[0][at]
            if x.size != y.size or not (together or close):
                continue
            options = list(layouts(x.shape, y.shape))
            equal = [it for it in options if apart(it.to_b(x), y) <= _NEAR] if close else []
            if equal or (options and together):
                fitting[at, to] = equal or options
                scores[at, to] = _EQUAL * bool(equal) + _STAGE * together + _names(first[at], second[to])
                g, h = first[at].of(of_a[1][first[at].name]), second[to].of(of_b[1][second[to].name])
                scores[at, to] += _ALIKE * _cosine(g, h, fitting[at, to][0])
    places = [(int(at), int(to)) for at, to in zip(*linear_sum_assignment(-scores), strict=True)]
    places = [place for place in places if place in fitting]
    votes = Counter((len(fitting[place][0].axes), fitting[place][0].axes) for place in places
                    if len(fitting[place]) == 1)  # fmt: skip
    return [
        ParameterPair(first[at], second[to],
                      max(fitting[at, to], key=lambda it: votes[len(it.axes), it.axes]), a[at].shape)
        for at, to in places
    ]  # fmt: skip


def _pieces(whole: Piece, array: np.ndarray, parts: Sequence[np.ndarray]) -> list[Piece]:
    """The whole cut along the axis, and into as many pieces, of which most are equal to one of the parts."""
    best: tuple[int, list[Piece]] = (0, [])
    sizes = {part.size for part in parts if part.size and array.size % part.size == 0 and part.size < array.size}
    for count in sorted({array.size // size for size in sizes if array.size // size <= _MOST_PIECES}):
        for axis, length in enumerate(array.shape):
            if length % count:
                continue
            width = length // count
            cut = [Piece(whole.name, axis, at * width, (at + 1) * width) for at in range(count)]
            equal = sum(any(_equal(part, piece.of(array)) for part in parts) for piece in cut)
            best = max(best, (equal, cut), key=lambda it: it[0])
    return best[1] if best[0] == len(best[1]) else []


def _equal(x: np.ndarray, y: np.ndarray) -> bool:
    if x.size != y.size:
        return False
    norms = [float(np.linalg.norm(np.asarray(it, np.float64))) for it in (x, y)]
    close = abs(norms[0] - norms[1]) <= 1e-4 * norms[0]
    return close and any(apart(it.to_b(x), y) <= _NEAR for it in layouts(x.shape, y.shape))


def _names(one: Piece, other: Piece) -> float:
    words, numbers = ([list(_split(piece.stage + piece.name.rpartition(".")[2], form)) for piece in (one, other)]
                      for form in (r"[a-z]+", r"\d+"))  # fmt: skip
    both = set(words[0]) | set(words[1])
    return _WORDS * len(set(words[0]) & set(words[1])) / max(len(both), 1) + _NUMBERS * (numbers[0] == numbers[1])


def _split(name: str, form: str) -> Iterator[str]:
    return (found.group() for found in re.finditer(form, name.lower()))


def _cosine(x: np.ndarray, y: np.ndarray, layout: Layout) -> float:
    x, y = (np.asarray(array, np.float64).ravel() for array in (layout.to_b(x), y))
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size else 0.0
