"""Why a stage of B computes something else: what would turn A's result into B's, tried one by one.

A cause is named only if it brings the distance down to rounding (in float64 where both models run in it); of a 16-bit
dtype or TF32, whose rounding no other code repeats, to a quarter. Every one that does is named. What is tried needs
A's own input, its weights and its result; no code of either model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vit_parity.bound import relative
from vit_parity.porting.attention import whole
from vit_parity.porting.functions import before_a_stage, last_functions, other_functions
from vit_parity.porting.layers import PARTS, of_layer
from vit_parity.porting.layouts import layouts
from vit_parity.porting.pairs import Pair, changed
from vit_parity.porting.rounded import ROUNDED, is_rounded
from vit_parity.porting.stages import Parts, output_key
from vit_parity.porting.suggest import known_kind

if TYPE_CHECKING:
    from vit_parity.porting.aligned import Aligned
    from vit_parity.porting.compare import Side
    from vit_parity.porting.findings import Fault
    from vit_parity.porting.stages import Observed

Told = tuple[str, np.ndarray]
"""What B does, in words that follow its name, and what it would then compute."""
_EXACT = 1e-9
"""Largest relative distance that counts as explained in float64; constants of a model may be rounded to float32, so
:data:`_CONSTANTS` is allowed where the difference itself is much larger."""
_CONSTANTS = 3e-7
_COARSER = ("computes more coarsely than its dtype: look for casts, and for the precision of matrix products",)


@dataclass(frozen=True)
class Evidence:
    """What causes are tried on."""

    a: Side
    b: Side
    aligned: Aligned
    alone: Observed | None


def causes(fault: Fault, known: Evidence) -> tuple[tuple[str, ...], str]:
    """Every cause that explains a fault down to rounding; or why none is named."""
    if fault.shown == "precision":
        return _COARSER, ""
    seen = known.alone if fault.shown != "first" else None
    if seen is None or fault.key_b not in seen.values:
        return (), "no cause is tried, because B's stages cannot be run one by one"
    part = _part(fault, known)
    y = changed(known.aligned.a.values[fault.key], part.of_a).astype(np.float64)
    theirs = changed(seen.values[fault.key_b], part.of_b).astype(np.float64)
    options = [it.to_a(theirs, y.shape) for it in layouts(y.shape, theirs.shape) if it.axes == _axes(fault, known)]
    if not options or not np.isfinite(options[0]).all():
        return (), "no cause is tried on infinite numbers" if options else ""
    target = options[0]
    before = relative(target, y)
    allowed = min(
        max(_EXACT, min(_CONSTANTS, before / 30)) if known.aligned.b is known.b.wide else fault.limit, before / 4
    )
    tried = itertools.chain(_of_stage(fault, known, y, target), _of_result(y, target))
    fitting = dict.fromkeys(words for words, value in tried if _fits(words, value, target, before, allowed))
    # What one mistake explains, the same one beside an epsilon too small to be seen explains as well.
    simple = tuple(words for words in fitting if not any(words.endswith(f", and {other}") for other in fitting))
    return simple, _unnamed(fault, known, y, target)


def _part(fault: Fault, known: Evidence) -> Pair:
    """The pair whose arrays show a fault, for what of them it compares."""
    both = fault.key, fault.key_b
    return next((it for it in known.aligned.pairs if (output_key(it.a), output_key(it.b)) == both), Pair("", ""))


def _unnamed(fault: Fault, known: Evidence, y: np.ndarray, target: np.ndarray) -> str:
    stage = output_key(fault.stage)[0]
    name = known.aligned.a.kinds.get(stage, "")
    own = known.a.model.parts(stage) if known.a.model else Parts()
    kind = known_kind(name)
    special = kind == "attention" or next(of_layer(known.aligned.a, stage, kind, y, target, own), None) is not None
    if fault.shown == "output" and own.arrays and not special:
        return f"of {name or 'this stage'} only the causes of any stage could be tried, and none fits"
    return "no known cause fits"


def _of_stage(fault: Fault, known: Evidence, y: np.ndarray, target: np.ndarray) -> Iterator[Told]:
    """What depends on the stage: its kind, its weights, its input."""
    aligned = known.aligned
    if fault.shown == "input":  # the code before it: most likely a function of what was computed last
        yield from before_a_stage(fault, known.a, aligned.a, y, target)
        return
    stage = output_key(fault.stage)[0]
    given = [array.astype(np.float64) for array in aligned.a.inputs(stage).values()]
    own = known.a.model.parts(stage) if known.a.model else Parts()
    for x in given:
        if x.shape == y.shape:
            yield "returns its input as it is", x
        yield from other_functions(x, y)
    yield from last_functions(aligned.a, stage, y)
    kind = known_kind(aligned.a.kinds.get(stage, "")) or ""
    yield from of_layer(aligned.a, stage, kind or None, y, target, own)
    if kind == "attention" and given and known.a.model:
        yield from whole(given[0], y, own, known.a.model.parts(f"{stage}.out_proj"))
    for name, parameter in own.arrays.items():
        if name.startswith("running") or parameter.ndim != 1:
            continue
        for axis in (-1, 1):
            if y.ndim > abs(axis) - (axis < 0) and y.shape[axis] == parameter.size and "bias" in name:
                added = np.expand_dims(parameter.astype(np.float64), list(range(1, y.ndim - axis % y.ndim)))
                if not kind.endswith("norm"):  # which said so itself
                    yield f"leaves out {name}", y - added
                yield f"adds {name} twice", y + added


def _of_result(y: np.ndarray, target: np.ndarray) -> Iterator[Told]:
    """What can be read off A's result and B's alone."""
    yield "returns zeros", np.zeros_like(y)
    if size := float((y * y).sum()):
        factor = float((y * target).sum()) / size
        yield f"has {_number(factor)} times the result", y * factor
    for order in itertools.permutations(range(1, y.ndim)) if y.ndim <= 4 else ():
        turned = y.transpose(0, *order)
        if turned.shape == y.shape and order != tuple(range(1, y.ndim)):
            yield f"swaps axes {_moved(order)}", turned
    for axis in range(y.ndim):
        yield f"reverses axis {axis}", np.flip(y, axis)
        for count in (2, 3, 4):
            if axis and y.shape[axis] % count == 0:
                parts = np.split(y, count, axis)
                for order in itertools.permutations(range(count)):
                    if order != tuple(range(count)):
                        yield (f"has the {PARTS[count]} of axis {axis} in the order {order}",
                               np.concatenate([parts[at] for at in order], axis))  # fmt: skip
    for name, rounded in ROUNDED.items():
        yield f"rounds its result to {name}", rounded(y)
    for axis in range(1, y.ndim):
        for shift in (1, -1):
            yield f"is shifted by {shift} along axis {axis}", np.roll(y, shift, axis)


def _axes(fault: Fault, known: Evidence) -> tuple[int, ...] | None:
    """The order of A's axes in B's array of a fault."""
    if fault.shown == "input":
        return known.aligned.slots[fault.key_b][1].axes
    found = [known.aligned.layouts[pair.name] for pair in known.aligned.pairs if output_key(pair.a) == fault.key]
    return found[0].axes if found and found[0] is not None else None


def _fits(words: str, value: np.ndarray, target: np.ndarray, before: float, allowed: float) -> bool:
    if value.shape != target.shape:
        return False
    return relative(value, target) <= (max(allowed, before / 4) if is_rounded(words, target) else allowed)


def _number(factor: float) -> str:
    return f"{factor:.6g}"


def _moved(order: tuple[int, ...]) -> str:
    moved = [str(at) for at, axis in enumerate(order, 1) if at != axis]
    return " and ".join(moved)
