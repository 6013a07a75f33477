"""B's arrays in A's axes and A's in B's, stage by stage, for a list of pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from vit_parity.porting.layouts import Layout, apart, layouts
from vit_parity.porting.pairs import Pair, changed
from vit_parity.porting.stages import Key, Observed, Values, is_float, output_key
from vit_parity.porting.suggest import known_kind

_CONVENTIONS = ((0, 2, 3, 1), (0, 3, 1, 2))
"""Channels last for channels first, and the other way: what is meant where neither values nor shapes decide."""


@dataclass
class Aligned:
    """Two passes, whose axes are matched.

    Values decide between several layouts as long as they agree. Where they do not, behind a fault, the layout that most
    arrays of as many axes had decides; an array that would agree in a layout of its own only is at fault.

    Args:
        a: a pass of the reference.
        b: of what is compared with it.
        pairs: which stages belong together.
        near: the relative L2 distance up to which values count as equal.
    """

    a: Observed
    b: Observed
    pairs: Sequence[Pair]
    near: float
    usual: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Number of axes → the order of A's in B."""
    layouts: dict[str, Layout | None] = field(default_factory=dict)
    """Pair → its layout; ``None`` if no layout fits, or several do and nothing decides."""
    slots: dict[Key, tuple[Key, Layout]] = field(default_factory=dict)
    """An input of a stage of B → the input of A's that it is."""
    unknown: set[str] = field(default_factory=set)
    """Stages of B with an input that none of A's is."""
    loose: set[str] = field(default_factory=set)
    """Stages of B with a counterpart that does not tell all of what they return."""

    def __post_init__(self) -> None:
        votes: dict[int, Counter[tuple[int, ...]]] = {}
        for x, y in [*self._outputs(), *self._inputs()]:
            fitting = list(layouts(x.shape, y.shape))
            equal = [it for it in fitting if apart(it.to_b(x), y) <= self.near]
            if equal or len(fitting) == 1:  # shapes alone may decide too, but values tell more
                layout = (equal or fitting)[0]
                votes.setdefault(x.ndim, Counter())[layout.axes] += 100 if equal else 1
        self.usual = {axes: count.most_common(1)[0][0] for axes, count in votes.items()}
        for pair in self.pairs:
            self.layouts[pair.name] = self._chosen(self.value_a(pair), self.value_b(pair))
        for pair in self.pairs:
            self._match_inputs(pair)

    def _outputs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((self.value_a(pair), self.value_b(pair)) for pair in self.pairs)

    def _inputs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Inputs of stages that belong together, as they stand side by side."""
        for pair in self.pairs:
            given = self.a.inputs(output_key(pair.a)[0]).values(), self.b.inputs(output_key(pair.b)[0]).values()
            yield from zip(*given, strict=False)

    def value_a(self, pair: Pair, seen: Observed | None = None) -> np.ndarray:
        """A's array of a pair, with what the pair does to it."""
        return changed((seen or self.a).values[output_key(pair.a)], pair.of_a)

    def value_b(self, pair: Pair, seen: Observed | None = None) -> np.ndarray:
        """B's, in its own axes."""
        return changed((seen or self.b).values[output_key(pair.b)], pair.of_b)

    def turned(self, pair: Pair, seen: Observed | None = None) -> np.ndarray | None:
        """B's array in A's axes."""
        layout, x, y = self.layouts[pair.name], self.value_a(pair), self.value_b(pair, seen)
        return None if layout is None or math.prod(layout.shape) != y.size else layout.to_a(y, x.shape)

    def forced(self) -> Values:
        """What B's stages are given and return, if all before them were A's."""
        put: Values = {}
        covered: Values = {}
        for pair in self.pairs:
            layout, key = self.layouts[pair.name], output_key(pair.b)
            if layout is None:
                continue
            if key not in put:
                dtype = max(self.b.values[key].dtype, self.value_a(pair).dtype, key=lambda it: it.itemsize)
                put[key] = self.b.values[key].astype(dtype)
                covered[key] = np.zeros(put[key].shape, bool)
            part, there = changed(put[key], pair.of_b), changed(covered[key], pair.of_b)
            if np.shares_memory(part, put[key]) and part.size == math.prod(layout.shape):
                part[...] = layout.to_b(self.value_a(pair)).reshape(part.shape)
                there[...] = True
        whole = {key: array for key, array in put.items() if covered[key].all()}
        self.loose = {key[0] for key in put if key not in whole}
        return whole | {slot: layout.to_b(self.a.values[source]) for slot, (source, layout) in self.slots.items()}

    def own(self) -> Values:
        """A's own values in the same places."""
        put = {output_key(pair.a): self.a.values[output_key(pair.a)] for pair in self.pairs}
        return put | {source: self.a.values[source] for source, _ in self.slots.values()}

    def _chosen(self, x: np.ndarray, y: np.ndarray) -> Layout | None:
        fitting = list(layouts(x.shape, y.shape))
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        usual = [it for it in fitting if it.axes == self.usual.get(x.ndim)]
        equal = [it for it in fitting if apart(it.to_b(x), y) <= self.near]
        if usual:
            return usual[0]
        if equal:
            return equal[0]
        if fitting[0].plain:
            return fitting[0]
        return next((it for it in fitting if it.axes in _CONVENTIONS), None)

    def _match_inputs(self, pair: Pair) -> None:
        stage_a, stage_b = output_key(pair.a)[0], output_key(pair.b)[0]
        given = list(self.a.inputs(stage_a).items())
        alone = known_kind(self.a.kinds.get(stage_a, "")) is None and not _has_parts(self.a, stage_a)
        alike = not (alone and _has_parts(self.b, stage_b))  # an activation ends a module, and begins elsewhere
        own = self.b.inputs(stage_b)
        for slot, y in own.items():
            options = []
            for at, (source, x) in enumerate(given):
                layout = self._chosen(x, y)
                far = math.inf if layout is None else apart(layout.to_b(x), y)
                if layout is not None and (alike or far <= self.near):
                    same_place = at == list(own).index(slot)
                    options.append((far > self.near, not same_place, far, source, layout))
            if options:
                *_, source, layout = min(options, key=lambda it: it[:3])
                self.slots[slot] = (source, layout)
            elif is_float(y):
                self.unknown.add(stage_b)


def _has_parts(seen: Observed, stage: str) -> bool:
    """Whether a module holds others that are called."""
    return any(other.startswith(f"{stage}.") for other in seen.kinds)
