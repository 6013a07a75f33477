"""Stages that several of the other side make together, as a joint product of queries, keys and values, by weights and
by place: where a mistake is in one of them, its values tell nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from vit_parity.porting.pairs import Pair
from vit_parity.porting.scores import Stage, prints_of
from vit_parity.porting.stages import Model

_COUNTS = (2, 3)


def joined(
    first: Sequence[Stage], second: Sequence[Stage], pairs: Sequence[Pair], of_a: Model | None, of_b: Model | None
) -> list[Pair]:
    """Pairs of a stage and a part of another along the last axis, among what is not paired yet.

    Between the nearest pairs before and behind, the layers of a kind on one side must be of the very sizes of the parts
    of the only one on the other. Their order is that of equal weights, else that of the same layers elsewhere in the
    model, else that of computation.

    Args:
        first: A's stages, in order of computation.
        second: B's.
        pairs: what is paired, parts included.
        of_a: A, for its weights.
        of_b: B.
    """
    found: list[Pair] = []
    for swapped in (True, False):
        wholes, parts, of_whole, of_part = (second, first, of_b, of_a) if swapped else (first, second, of_a, of_b)
        known = [(pair.b, pair.a, pair.of_b) if swapped else (pair.a, pair.b, pair.of_a) for pair in pairs]
        usual = {(_pattern(whole), _pattern(part)): index for whole, part, index in known if index}
        for whole, between in _alone(wholes, parts, {(whole, part) for whole, part, _ in known}):
            width = whole.array.shape[-1] // len(between)
            indices = [f"[..., {at * width}:{(at + 1) * width}]" for at in range(len(between))]
            told = [_by_weights(whole, part, of_whole, of_part, indices) or
                    usual.get((_pattern(whole.name), _pattern(part.name))) for part in between]  # fmt: skip
            chosen = told if sorted(map(str, told)) == sorted(indices) else indices
            for part, index in zip(between, chosen, strict=True):
                found.append(Pair(part.name, whole.name, "", index or "") if swapped else
                             Pair(whole.name, part.name, index or "", ""))  # fmt: skip
    return found


def _alone(
    wholes: Sequence[Stage], parts: Sequence[Stage], known: set[tuple[str, str]]
) -> Iterator[tuple[Stage, list[Stage]]]:
    """Layers without a pair, and what between the same pairs could be their parts."""
    at = {it.name: place for place, it in enumerate(wholes)}
    to = {it.name: place for place, it in enumerate(parts)}
    places = sorted((at[whole], to[part]) for whole, part in known if whole in at and part in to)
    paired = {whole for whole, _ in known}
    for here, whole in enumerate(wholes):
        if whole.name in paired or whole.kind is None or not whole.array.ndim:
            continue
        before = max((place for place in places if place[0] < here), default=(-1, -1))
        behind = min((place for place in places if place[0] > here), default=(len(wholes), len(parts)))
        others = [it for it in wholes[before[0] + 1 : behind[0]] if it.kind == whole.kind]
        found = [it for it in parts[before[1] + 1 : behind[1]] if it.kind == whole.kind]
        whole_size, count = whole.array.size, len(found)
        same_size = all(it.array.size * count == whole_size for it in found)
        if len(others) == 1 and count in _COUNTS and same_size and whole.array.shape[-1] % count == 0:
            yield whole, found


def _by_weights(
    whole: Stage, part: Stage, of_whole: Model | None, of_part: Model | None, indices: Sequence[str]
) -> str | None:
    """Which part of the whole has these weights, if one alone has."""
    own = frozenset() if of_part is None else prints_of(of_part.parts(part.name).arrays)
    if of_whole is None or not own:
        return None
    places: set[int] = set()
    for array in of_whole.parts(whole.name).arrays.values():
        for axis in (axis for axis, length in enumerate(array.shape) if length % len(indices) == 0):
            pieces = np.split(array, len(indices), axis)
            places |= {at for at, piece in enumerate(pieces) if prints_of({"": piece}) & own}
    return indices[places.pop()] if len(places) == 1 else None


def _pattern(name: str) -> str:
    """The name of a stage in any block."""
    return re.sub(r"\d+", "*", name)
