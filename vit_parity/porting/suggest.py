"""A draft of the pairs, from values, weights, kinds, names, and the order of computation.

Both lists of stages are laid side by side by the alignment of two sequences (Needleman & Wunsch 1970): a pair scores by
what speaks for it, and order is kept. Only stages whose sizes agree can be a pair. Equal values are the strongest
reason, then equal weights, which tell behind a fault as well as before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vit_parity.porting.joined import joined
from vit_parity.porting.layouts import nearest
from vit_parity.porting.pairs import Pair
from vit_parity.porting.scores import SAME_PARTS, SAME_WEIGHTS, Stage, prints_of, scored
from vit_parity.porting.stages import ROOT, Model, Observed

_ENOUGH = 2.5
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
    scores, alike = scored(first, second, near)
    chosen = _aligned(scores)
    free = np.ones(len(second), bool)
    free[list(chosen.values())] = False
    for at in (at for at in range(len(first)) if at not in chosen):  # computed in another order: queries, keys, values
        best = int(np.where(free, scores[at], -np.inf).argmax()) if free.any() else 0
        if free.any() and scores[at, best] >= SAME_WEIGHTS:
            chosen[at], free[best] = best, False
    # Right values behind a stage that is far off, and has no weights in common: the two are not the same stage.
    right = max((at for at, to in chosen.items() if alike[at, to] > _ALIKE_AT_LEAST), default=0)
    by_name = of_a is None or of_b is None  # a capture has no weights
    sure = {at: to for at, to in chosen.items()
            if at >= right or alike[at, to] > _ALIKE_AT_LEAST or first[at].weights & second[to].weights
            or first[at].shared(second[to]) >= SAME_PARTS
            or (by_name and first[at].name == second[to].name)}  # fmt: skip
    chosen = sure | {at: to for at, to in chosen.items() if _only_ones(at, to, first, second, sure)}
    pairs = [Pair(first[at].name, second[to].name) for at, to in sorted(chosen.items())]
    taken_a, taken_b = {pair.a for pair in pairs}, {pair.b for pair in pairs}
    rest_a = [it for it in first if it.name not in taken_a]
    rest_b = [it for it in second if it.name not in taken_b]
    pairs += _parts(rest_a, rest_b, near)
    pairs += joined(first, second, pairs, of_a, of_b)
    order = {it.name: at for at, it in enumerate(first)}
    pairs.sort(key=lambda pair: order[pair.a])
    taken_a, taken_b = {pair.a for pair in pairs}, {pair.b for pair in pairs}
    return Suggestion(
        tuple(pairs),
        tuple(it.name for it in rest_a if it.name not in taken_a),
        tuple(it.name for it in rest_b if it.name not in taken_b),
    )


def _only_ones(at: int, to: int, first: Sequence[Stage], second: Sequence[Stage], sure: Mapping[int, int]) -> bool:
    """Whether two stages are the only ones of their kind on either side between pairs that are sure."""
    kind = first[at].kind
    if kind is None or kind != second[to].kind:
        return False
    before = max(((one, other) for one, other in sure.items() if one < at and other < to), default=(-1, -1))
    behind = min(((one, other) for one, other in sure.items() if one > at and other > to),
                 default=(len(first), len(second)))  # fmt: skip
    between = first[before[0] + 1 : behind[0]], second[before[1] + 1 : behind[1]]
    return all([it.kind for it in of].count(kind) == 1 for of in between)


def _described(seen: Observed, model: Model | None) -> list[Stage]:
    found, outputs = [], seen.outputs
    names = [name for name in outputs if seen.kinds.get(name, "").lower() not in _SILENT]
    prints = {name: frozenset() if model is None or name == ROOT else prints_of(model.parts(name).arrays)
              for name in names}  # fmt: skip
    below: dict[str, set[tuple[int, float]]] = {}
    for name, own in prints.items():
        stem, *steps = re.split(r"(?=\[\d+\])", name)
        for dot, count in itertools.product(re.finditer(r"\.", stem), range(len(steps) + 1)):
            above = stem[: dot.start()] + "".join(steps[:count])  # of a module in a scan, or round it
            below.setdefault(above, set()).update(own)
    for name in names:
        array = np.clip(np.asarray(outputs[name], np.float64), -1e30, 1e30)
        kind = seen.kinds.get(name)
        leaf = name not in below
        known = None if kind is None else known_kind(kind)
        found.append(Stage(name, array, known, float(np.linalg.norm(array)), prints[name],
                           prints[name] | below.get(name, set()), leaf))  # fmt: skip
    return found


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


def _parts(rest_a: Sequence[Stage], rest_b: Sequence[Stage], near: float) -> list[Pair]:
    """Stages that are a part of one on the other side along the last axis, as queries are of a joint product."""
    found: list[Pair] = []
    for wholes, parts, swapped in ((rest_b, rest_a, True), (rest_a, rest_b, False)):
        norms = np.array([part.norm for part in parts])
        sizes = np.array([part.array.size for part in parts])
        for whole, count in itertools.product(wholes, (2, 3)):
            width, rest = divmod(whole.array.shape[-1] if whole.array.ndim else 1, count)
            if rest:
                continue
            for at in range(count):
                piece = whole.array[..., at * width : (at + 1) * width]
                alike = np.abs(norms - np.linalg.norm(piece)) <= 2 * near * norms
                for to in np.flatnonzero(alike & (sizes == piece.size)).tolist():
                    match = nearest(parts[to].array, piece)
                    if match is not None and match[1] <= near:
                        index = f"[..., {at * width}:{(at + 1) * width}]"
                        a, b = (parts[to], whole) if swapped else (whole, parts[to])
                        found.append(Pair(a.name, b.name, "" if swapped else index, index if swapped else ""))
    return found
