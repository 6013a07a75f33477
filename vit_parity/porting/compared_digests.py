"""Two digests compared: distances are estimates, and of each stage it is told whether rounding explains it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vit_parity.bound import MARGIN, growth
from vit_parity.capture import Capture, headings
from vit_parity.porting.capture import capture
from vit_parity.porting.compare import Pairs
from vit_parity.porting.digests import ERROR, Digest, DigestedStage, digest_of, distance
from vit_parity.porting.kept_steps import read
from vit_parity.porting.pairs import Pair, both_names, read_pairs
from vit_parity.porting.stages import ROOT
from vit_parity.ulp import roundoff
from vit_spec import VitportError

_NEAR = 1e-3
"""Relative L2 distance up to which digests count as equal when stages are paired; it decides no verdict."""


@dataclass(frozen=True)
class DigestRow:
    """One pair of stages."""

    stage: str
    counterpart: str
    distance: float
    """Estimated relative L2 distance of B from A."""
    limit: float
    """The largest that rounding explains."""
    verdict: Literal["rounding", "divergence", "unknown"]
    """As of :class:`vit_parity.porting.Porting`; behind the first stage apart nothing can be judged by itself."""


@dataclass(frozen=True)
class DigestFindings:
    """Two digests compared."""

    a: Digest
    b: Digest
    rows: tuple[DigestRow, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether rounding explains every difference."""
        return all(row.verdict == "rounding" for row in self.rows)

    @property
    def conclusion(self) -> str:
        """The result in words."""
        if self.equal:
            return f"Rounding explains every difference, as far as digests show (estimates to {ERROR:.0%})."
        first = next(row for row in self.rows if row.verdict != "rounding")
        name = both_names(first.stage, first.counterpart)
        return (
            f"Fault: {name} is the first stage apart ({first.distance:.1e}, estimated to {ERROR:.0%}, where rounding "
            f"explains {first.limit:.1e}). Captures with arrays, or the models themselves, tell more."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": 1,
            "equal": self.equal,
            "a": {"title": self.a.title, "facts": self.a.facts},
            "b": {"title": self.b.title, "facts": self.b.facts},
            "stages": [dataclasses.asdict(row) for row in self.rows],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "conclusion": self.conclusion,
        }

    def __str__(self) -> str:
        lines = [*headings(self.a, self.b), "B against A  rounding  stage of A = stage of B"]
        lines += [f"{row.distance:11.1e}   {row.limit:.1e}  {row.stage} = {row.counterpart}  {row.verdict}"
                  for row in self.rows]  # fmt: skip
        return "\n".join([*lines, self.conclusion])


def compare_digests(
    a: Any, b: Any, inputs: Any = None, *, inputs_b: Any = None, pairs: Pairs | None = None
) -> DigestFindings:  # fmt: skip
    """Compare what two runs computed by their digests, which are small enough to be kept of large models.

    >>> theirs = vitport.capture(torch_model, x, keep="digest", to="theirs.npz")  # on one machine
    >>> print(vitport.compare_digests("theirs.npz", flax_model, x))  # on another

    Args:
        a: the reference: a digest, a capture, the file of one, or a model.
        b: what is compared with it, in the same way.
        inputs: of a model, as of :func:`vit_parity.porting.capture`.
        inputs_b: B's, if they differ.
        pairs: which stages belong together, as of :func:`vit_parity.porting.compare`; drafted by default.

    Raises:
        VitportError: if nothing belongs together, or a pair takes a part of an array.
    """
    return _compared(_digest(a, inputs), _digest(b, inputs if inputs_b is None else inputs_b), pairs)


def _digest(side: Any, inputs: Any) -> Digest:
    if isinstance(side, (Capture, Digest)) or (isinstance(side, (str, Path)) and not str(side).endswith(".onnx")):
        found = read(side)
        return found if isinstance(found, Digest) else digest_of(found)
    if inputs is None:
        raise VitportError("compare_digests needs the inputs of a model: compare_digests(a, b, x).")
    return capture(side, inputs, keep="digest")


def _compared(a: Digest, b: Digest, pairs: Pairs | None) -> DigestFindings:
    chosen = _drafted(a.stages, b.stages) if pairs is None else read_pairs(pairs, list(a.stages), list(b.stages))
    if not chosen:
        raise VitportError(f"No stage of {a.title} belongs to one of {b.title}: name them in a file of pairs.")
    if any(it.of_a or it.of_b for it in chosen):
        raise VitportError("Of a digest only whole arrays are compared: leave out pairs with parts, or keep arrays.")
    u = max(roundoff(np.dtype(it.facts.get("dtype", "float32"))) for it in (a, b))
    longest = max((size for it in a.stages.values() for size in it.shape[1:]), default=1)
    rows: list[DigestRow] = []
    apart = False
    for at, pair in enumerate(chosen, 1):
        x, y = a.stages[pair.a], b.stages[pair.b]
        gap = distance(x, y)
        far = gap / x.norm if x.norm else 0.0 if gap == 0 else math.inf
        limit = MARGIN * 2 * growth(longest, u) * u * at
        right = far <= limit
        rows.append(DigestRow(pair.a, pair.b, far, limit,
                              "rounding" if right else "unknown" if apart else "divergence"))  # fmt: skip
        apart = apart or not right
    taken_a, taken_b = {it.a for it in chosen}, {it.b for it in chosen}
    only_a, only_b = (tuple(name for name in side.stages if name not in taken)
                      for side, taken in ((a, taken_a), (b, taken_b)))  # fmt: skip
    return DigestFindings(a, b, tuple(rows), only_a, only_b)


def _drafted(a: Mapping[str, DigestedStage], b: Mapping[str, DigestedStage]) -> tuple[Pair, ...]:
    """Stages of equal values, in order; between those, stages of one size as they follow each other; the outputs."""
    first, second = list(a), list(b)
    near = _near(list(a.values()), list(b.values()))
    pairs: list[tuple[int, int]] = []
    last = -1
    for at in range(len(first)):
        options = [it for it in np.flatnonzero(near[at]) if it > last]
        if options:
            last = int(options[0])
            pairs.append((at, last))
    found: list[tuple[int, int]] = []
    before = (-1, -1)
    for pair in [*pairs, (len(first), len(second))]:
        behind = before[1] + 1
        for at in range(before[0] + 1, pair[0]):
            alike = [it for it in range(behind, pair[1]) if math.prod(a[first[at]].shape) ==
                     math.prod(b[second[it]].shape) and (first[at] == ROOT) == (second[it] == ROOT)]  # fmt: skip
            if alike and not _other_sizes(a[first[at]], b[second[alike[0]]]):
                found.append((at, alike[0]))
                behind = alike[0] + 1
        if pair[0] < len(first):
            found.append(pair)
        before = pair
    return tuple(Pair(first[x], second[y]) for x, y in found)


def _other_sizes(a: DigestedStage, b: DigestedStage) -> bool:
    """Whether norms alone say that two stages do not belong together."""
    return not 0.2 <= (a.norm + 1e-30) / (b.norm + 1e-30) <= 5


def _near(a: Sequence[DigestedStage], b: Sequence[DigestedStage]) -> np.ndarray:
    """Of each pair of stages, whether their digests are equal but for rounding."""
    found = np.zeros((len(a), len(b)), bool)
    sizes_a, sizes_b = ([math.prod(it.shape) for it in side] for side in (a, b))
    for size in set(sizes_a) & set(sizes_b):
        for at in (it for it, own in enumerate(sizes_a) if own == size):
            for to in (it for it, own in enumerate(sizes_b) if own == size):
                close = abs(a[at].norm - b[to].norm) <= _NEAR * max(a[at].norm, b[to].norm)
                found[at, to] = close and distance(a[at], b[to]) <= _NEAR * a[at].norm
    return found
