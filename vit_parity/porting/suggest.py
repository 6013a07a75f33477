"""A draft of the pairs, from values, weights, kinds, names, and the order of computation.

Both lists of stages are laid side by side by the alignment of two sequences (Needleman & Wunsch 1970): a pair scores by
what speaks for it, and order is kept. Only stages whose sizes agree can be a pair. Equal values are the strongest
reason, then equal weights, which tell behind a fault as well as before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vit_parity.porting.layouts import Layout, layouts, nearest
from vit_parity.porting.pairs import Pair
from vit_parity.porting.stages import ROOT, Model, Observed

_BELOW, _SAME_PARTS = 5.0, 0.5
_EQUAL, _WEIGHTS, _ALIKE, _KIND, _OTHER_KIND, _NUMBERS, _WORD, _SHAPE = 8.0, 6.0, 3.0, 2.0, -4.0, 1.0, 1.5, 0.5
_ENOUGH = 2.5
_SAMPLE = 4096
_ALIKE_AT_LEAST = 0.999
_KINDS = {
    "linear": "linear dense lineargeneral densegeneral conv1d nondynamicallyquantizablelinear einsum gemm matmul",
    "convolution": "conv conv2d conv3d convtranspose convtranspose2d",
    "layer norm": "layernorm layernormalization",
    "rms norm": "rmsnorm",
    "batch norm": "batchnorm batchnorm1d batchnorm2d batchnorm3d batchnormalization frozenbatchnorm2d",
    "group norm": "groupnorm instancenorm",
    "embedding": "embedding embed",
    "attention": "attention multiheadattention multiheaddotproductattention selfattention",
}
_SILENT = ("dropout", "dropout2d", "identity", "droppath", "stochasticdepth", "alphadropout")


@dataclass(frozen=True)
class Suggestion:
    """Pairs, and what has no counterpart."""

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{pair.name:<40} = {pair.b}{pair.of_b}" for pair in self.pairs]
        lines += [f"# {name:<38} : only in {letter}" for letter, names in (("A", self.only_a), ("B", self.only_b))
                  for name in names]  # fmt: skip
        return "\n".join(lines) + "\n"


def known_kind(name: str) -> str | None:
    """What a class of modules computes, as far as its name is known."""
    if name == "Conv1d":  # transformers calls a linear layer Conv1D
        return "convolution"
    word = name.lower().lstrip("_")
    norm = next((it for it in ("layernorm", "rmsnorm", "groupnorm") if word.endswith(it)), word)  # LlamaRMSNorm
    return next((kind for kind, words in _KINDS.items() if norm in words.split()), None)


def suggest(a: Observed, b: Observed, of_a: Model | None, of_b: Model | None, near: float) -> Suggestion:
    """Pair the stages of two passes.

    Args:
        a: a pass of the reference.
        b: of what is compared with it.
        of_a: its model, for its weights.
        of_b: the other one.
        near: the relative L2 distance up to which values count as equal.
    """
    first, second = _described(a, of_a), _described(b, of_b)
    scores = np.full((len(first), len(second)), -np.inf)
    alike = np.zeros(scores.shape)
    for at, one in enumerate(first):
        for to, other in enumerate(second):
            if one.size == other.size and next(layouts(one.array.shape, other.array.shape), None) is not None:
                scores[at, to], alike[at, to] = _score(one, other, near)
    chosen = _aligned(scores)
    left = [at for at in range(len(first)) if at not in chosen]
    for at in left:  # computed in another order: queries, keys and values, for one
        free = [to for to in range(len(second)) if to not in chosen.values() and scores[at, to] >= _WEIGHTS]
        if free:
            chosen[at] = max(free, key=lambda to: scores[at, to])
    # Right values behind a stage that is far off, and has no weights in common: the two are not the same stage.
    right = max((at for at, to in chosen.items() if alike[at, to] > _ALIKE_AT_LEAST), default=0)
    chosen = {at: to for at, to in chosen.items()
              if at >= right or alike[at, to] > _ALIKE_AT_LEAST or first[at].weights & second[to].weights
              or first[at].shared(second[to]) >= _SAME_PARTS}  # fmt: skip
    pairs = [Pair(first[at].name, second[to].name) for at, to in sorted(chosen.items())]
    taken_a, taken_b = {pair.a for pair in pairs}, {pair.b for pair in pairs}
    rest_a = [it for it in first if it.name not in taken_a]
    rest_b = [it for it in second if it.name not in taken_b]
    parts = _parts(rest_a, rest_b, near)
    pairs = sorted([*pairs, *parts], key=lambda pair: [it.name for it in first].index(pair.a))
    taken_a, taken_b = {pair.a for pair in pairs}, {pair.b for pair in pairs}
    return Suggestion(
        tuple(pairs),
        tuple(it.name for it in rest_a if it.name not in taken_a),
        tuple(it.name for it in rest_b if it.name not in taken_b),
    )


@dataclass(frozen=True)
class _Stage:
    name: str
    array: np.ndarray
    kind: str | None
    norm: float
    weights: frozenset[tuple[int, float]]
    below: frozenset[tuple[int, float]]
    """Of a module with parts: its weights and theirs."""
    leaf: bool

    def shared(self, other: _Stage) -> float:
        """Of the weights of two modules with parts, the share that both have."""
        both = frozenset() if self.leaf or other.leaf else self.below | other.below
        return len(self.below & other.below) / len(both) if both else 0.0

    @property
    def size(self) -> int:
        return self.array.size

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(re.findall(r"\d+", re.sub(r"(?<=[a-z])\d+(?=$|\.)", "", self.name)))

    @property
    def is_block(self) -> bool:
        return re.search(r"[.\[]\d+\]?$", self.name) is not None

    @property
    def words(self) -> frozenset[str]:
        return frozenset(re.findall(r"[a-z]+\d*", self.name.lower().replace("_", ".")))


def _described(seen: Observed, model: Model | None) -> list[_Stage]:
    found = []
    names = [name for name in seen.outputs if seen.kinds.get(name, "").lower() not in _SILENT]
    prints = {name: frozenset() if model is None or name == ROOT else _prints(model.parts(name).arrays)
              for name in names}  # fmt: skip
    below: dict[str, frozenset[tuple[int, float]]] = {}
    for name, own in prints.items():
        for at in [it.start() for it in re.finditer(r"\.", name)]:
            below[name[:at]] = below.get(name[:at], frozenset()) | own
    for name in names:
        array = np.clip(np.asarray(seen.outputs[name], np.float64), -1e30, 1e30)
        kind = seen.kinds.get(name)
        leaf = name not in below
        known = None if kind is None else known_kind(kind)
        found.append(_Stage(name, array, known, float(np.linalg.norm(array)), prints[name],
                            below.get(name, frozenset()) | prints[name], leaf))  # fmt: skip
    return found


def _prints(arrays: Mapping[str, np.ndarray]) -> frozenset[tuple[int, float]]:
    """What of weights no change of axes alters; constant ones tell nothing."""
    wide = [np.asarray(array, np.float64) for array in arrays.values() if array.dtype.kind == "f" and array.ndim]
    return frozenset((array.size, float(f"{(array**2).sum():.5g}")) for array in wide if array.size and np.ptp(array))


def _score(one: _Stage, other: _Stage, near: float) -> tuple[float, float]:
    """What speaks for a pair, and the cosine of the angle between the two."""
    if (one.name == ROOT) != (other.name == ROOT):
        return -np.inf, 0.0
    score = 20.0 if one.name == ROOT else 0.0
    alike = max((_cosine(one, other, layout) for layout in layouts(one.array.shape, other.array.shape)), default=0.0)
    equal = False
    if alike > 1 - 1e-3 and abs(one.norm - other.norm) <= near * one.norm:
        found = nearest(one.array, other.array)
        equal = found is not None and found[1] <= near
    score += _EQUAL * equal + _ALIKE * max(alike, 0.0)
    score += _WEIGHTS * bool(one.weights & other.weights)
    score += _BELOW * one.shared(other)
    if one.kind is not None and other.kind is not None:
        score += _KIND if one.kind == other.kind else _OTHER_KIND
    elif one.leaf == other.leaf:
        score += _SHAPE
    if one.words and other.words:  # the numbers of a torch.nn.Sequential count its own modules
        score += _NUMBERS * (one.numbers == other.numbers)
        unknown = one.kind is None and other.kind is None
        same = equal or one.shared(other) >= _SAME_PARTS
        if unknown and one.is_block != other.is_block and not same:  # a block against a part of one
            score += _OTHER_KIND
        score += _WORD * len(one.words & other.words) / len(one.words | other.words)
    score += _SHAPE * (one.array.shape == other.array.shape)
    return score, alike


def _cosine(one: _Stage, other: _Stage, layout: Layout) -> float:
    """Of the angle between the two, by some thousand of their numbers."""
    step = max(1, one.size // _SAMPLE)
    x, y = layout.to_b(one.array).reshape(-1)[::step], other.array.reshape(-1)[::step]
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size else 0.0


def _aligned(scores: np.ndarray) -> dict[int, int]:
    """The best pairs that keep the order of both."""
    rows, columns = scores.shape
    gain = np.where(scores >= _ENOUGH, scores, -np.inf)
    best = np.zeros((rows + 1, columns + 1))
    for at in range(rows):
        fresh = np.maximum(best[at, 1:], best[at, :-1] + gain[at])
        best[at + 1, 1:] = np.maximum.accumulate(fresh)
    chosen: dict[int, int] = {}
    at, to = rows, columns
    while at and to:
        if best[at, to] == best[at - 1, to]:
            at -= 1
        elif best[at, to] == best[at, to - 1]:
            to -= 1
        else:
            at, to = at - 1, to - 1
            chosen[at] = to
    return chosen


def _parts(rest_a: Sequence[_Stage], rest_b: Sequence[_Stage], near: float) -> list[Pair]:
    """Stages that are a part of one on the other side along the last axis, as queries are of a joint product."""
    found: list[Pair] = []
    for whole, parts, swapped in [(it, rest_a, True) for it in rest_b] + [(it, rest_b, False) for it in rest_a]:
        for part in parts:
            count, rest = divmod(whole.size, part.size)
            if rest or count not in (2, 3) or whole.array.shape[-1] % count:
                continue
            width = whole.array.shape[-1] // count
            for at in range(count):
                piece = whole.array[..., at * width : (at + 1) * width]
                match = nearest(part.array, piece)
                if match is not None and match[1] <= near:
                    index = f"[..., {at * width}:{(at + 1) * width}]"
                    a, b = (part, whole) if swapped else (whole, part)
                    found.append(Pair(a.name, b.name, "" if swapped else index, index if swapped else ""))
    return found
