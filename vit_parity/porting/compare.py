"""Two models of any frameworks compared stage by stage: what is rounding, what is a fault, and what only follows one.

Three questions are asked of each pair of stages.

*Is it far away?* Both models run as they are. What rounding can amount to is measured as in :mod:`vit_parity.bound`: A
runs in float64 twice, once with all weights, inputs and results moved by a random share of at most the unit roundoff.

*Is it wrong by itself?* B runs once more with A's values in place: each stage is given what A's was given, and what it
returns is noted and replaced by what A's returned. So each stage is judged by itself, in one pass, and a second fault
shows behind a first. Both run in float64 where they can; then no rounding hides anything.

*May it be accused?* Only if all that it computes from was A's. A stage with inputs that nothing of A's answers to is
unknown, unless it is right.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vit_parity.bound import MARGIN
from vit_parity.porting.aligned import Aligned
from vit_parity.porting.capture import model_of
from vit_parity.porting.causes import Evidence, causes
from vit_parity.porting.digests import Digest
from vit_parity.porting.findings import Fault, PortedRow, Porting, Shown, StageVerdict, owner, ported_row
from vit_parity.porting.gradients import check_differentiable, compared_gradients
from vit_parity.porting.layouts import apart
from vit_parity.porting.limits import Limits
from vit_parity.porting.masks import Masks, passes_record, passes_replay
from vit_parity.porting.pairs import Pair, read_pairs
from vit_parity.porting.sides import Side, sides_of
from vit_parity.porting.stages import ROOT, Key, Observed, output_key
from vit_parity.porting.suggest import Suggestion, suggest
from vit_spec import VitportError

Pairs = str | Path | Iterable[Pair | str]
"""Which stages belong together: a file, its lines, or pairs."""
_NEAR_WIDE, _NEAR = 1e-6, 1e-4
"""Relative L2 distance up to which values count as equal when stages are paired; it decides no verdict."""


def compare(
    a: Any,
    b: Any,
    inputs: Any = None,
    *,
    inputs_b: Any = None,
    pairs: Pairs | None = None,
    gradients: bool = False,
    loss: Callable[[Any], Any] | None = None,
    loss_b: Callable[[Any], Any] | None = None,
    masks: Masks | bool = False,
) -> Porting:
    """Compare two models of any frameworks, stage by stage.

    >>> print(vitport.compare(torch_model, flax_model, inputs=x))

    Args:
        a: the reference: a ``torch.nn.Module``, an NNX module, a Linen module with variables, a JAX function, the path
            of an ``.onnx`` file, or a capture (:func:`vit_parity.porting.capture.capture`).
        b: what is compared with it.
        inputs: of both: an array, a tuple of positional arguments, or a dict of keyword arguments. Where B fails on
            images (B, C, H, W), it is given (B, H, W, C).
        inputs_b: B's, if they differ.
        pairs: which stages belong together: a file, its lines, or what :func:`suggest_pairs` drafts, as by default.
        gradients: also compare the gradients of all parameters and inputs, and those that arrive at each stage.
        loss: of gradients: from A's output to a number, in A's framework. By default a random linear function of the
            output, the same for both.
        loss_b: the same from B's output in B's framework; ``loss`` by default.
        masks: of models in training mode: A draws its random masks (dropout, drop path) once, and both use them. Or
            what :func:`vit_parity.porting.record_masks` recorded.

    Raises:
        VitportError: if a model cannot run, other masks are drawn than were recorded, no stages belong together, or a
            side has no gradients.
    """
    if isinstance(a, Digest) or isinstance(b, Digest):
        raise VitportError("A digest holds no arrays: compare it by vitport.compare_digests(a, b).")
    if not gradients and (loss is not None or loss_b is not None):
        raise VitportError("A loss is for gradients alone: give gradients=True, or leave it out.")
    if loss is None and loss_b is not None:
        raise VitportError("loss_b is B's loss beside A's: give loss too.")
    with passes_replay(_recorded(a, inputs) if masks is True else masks or None):
        first, second = sides_of(a, b, inputs, inputs_b)
        return _compared(first, second, pairs, gradients=gradients, losses=(loss, loss_b or loss))


def _recorded(model: Any, inputs: Any) -> Masks:
    """What one pass of a model draws."""
    masks = Masks()
    with passes_record(masks):
        model_of(model, inputs).run()
    if not masks.drawn:
        raise VitportError("A draws no random mask: put it into training mode, or leave out masks.")
    return masks


def _compared(
    first: Side, second: Side, pairs: Pairs | None, *, gradients: bool, losses: tuple[Any, Any]
) -> Porting:  # fmt: skip
    if gradients:
        for side in (first, second):
            check_differentiable(side)
    aligned = _aligned(first, second, _chosen(first, second, pairs))
    limits = Limits(first, second, aligned)
    alone, local_limits = _alone(first, second, aligned, limits)
    found = _judged(first, second, aligned, limits, (alone, local_limits))
    if not gradients:
        return found
    told = compared_gradients(first, second, aligned, alone, (limits.u, limits.growth), found.faults, losses)
    return dataclasses.replace(found, gradients=told)


def compared_captures(first: Side, second: Side, pairs: Pairs, *, slack: float) -> Porting:
    """Compare two captures, where rounding may amount to ``slack`` times as much as in one pass.

    Raises:
        VitportError: if no stages belong together.
    """
    aligned = _aligned(first, second, _chosen(first, second, pairs))
    return _judged(first, second, aligned, Limits(first, second, aligned, slack), (None, {}))


def _chosen(first: Side, second: Side, pairs: Pairs | None) -> tuple[Pair, ...]:
    names = list(first.best.outputs), list(second.best.outputs)
    chosen = drafted(first, second).pairs if pairs is None else read_pairs(pairs, *names)
    if not chosen:
        raise VitportError(
            f"No stage of {first.capture.title} belongs to one of {second.capture.title}: name them in a file of pairs."
        )
    return chosen


def suggest_pairs(a: Any, b: Any, inputs: Any = None, *, inputs_b: Any = None) -> Suggestion:
    """Draft which stages belong together, to be read, corrected and given to :func:`compare`.

    >>> Path("pairs.txt").write_text(str(vitport.suggest_pairs(torch_model, flax_model, inputs=x)))

    Args:
        a: as of :func:`compare`.
        b: the same.
        inputs: the same.
        inputs_b: the same.
    """
    return drafted(*sides_of(a, b, inputs, inputs_b))


def drafted(first: Side, second: Side) -> Suggestion:
    """Which stages of two sides belong together."""
    near = _NEAR_WIDE if first.wide is not None and second.wide is not None else _NEAR
    return suggest(first.best, second.best, first.model, second.model, near)


def _aligned(a: Side, b: Side, pairs: tuple[Pair, ...]) -> Aligned:
    exact = a.wide is not None and b.wide is not None
    return Aligned(a.best, b.best if exact or a.wide is None else b.plain, pairs, _NEAR_WIDE if exact else _NEAR)


def _judged(
    a: Side, b: Side, aligned: Aligned, limits: Limits, by_itself: tuple[Observed | None, dict[Key, float]]
) -> Porting:
    exact, pairs = a.wide is not None and b.wide is not None, tuple(aligned.pairs)
    alone, local_limits = by_itself
    rows: list[PortedRow] = []
    faults: list[Fault] = []
    arrays: list[tuple[np.ndarray, np.ndarray]] = []
    off = coarser = False
    doubtful: set[str] = set()  # modules that compute from something wrong which A's could not replace
    for pair in pairs:
        turned, plain = aligned.turned(pair), aligned.turned(pair, b.plain)
        if turned is None or plain is None:
            continue
        key = output_key(pair.a)
        x, exact_x = aligned.value_a(pair, a.plain), aligned.value_a(pair)
        far_off, exactly = apart(plain, x), apart(turned, exact_x)
        far = not far_off <= limits.together[key] or (exact and not exactly <= limits.exact(key))
        own = None if alone is None else aligned.turned(pair, alone)
        stage = output_key(pair.b)[0]
        known = own is not None and stage not in aligned.unknown and stage not in doubtful
        error = None if own is None else apart(own, exact_x)
        limit = local_limits.get(key, math.inf)
        inputs = [] if owner(stage) in doubtful else _wrong_inputs(pair, aligned, alone, local_limits)
        right = error is not None and error <= limit
        coarse = exact and far and exactly <= limits.exact(key)
        verdict: StageVerdict = "rounding"
        shown: Shown | None = None
        if error is not None and not right and stage in aligned.loose:
            doubtful.add(owner(stage))
        if error is not None and not right and known:
            verdict, shown = "divergence", "output"
        elif inputs:
            verdict = "divergence"
        elif coarse:  # of all stages that only the coarser run shows, the first is told
            verdict, shown = ("amplified", None) if coarser else ("divergence", "precision")
            coarser = True
        elif far and right:
            verdict = "amplified"
        elif far:
            verdict, shown = ("unknown", None) if off else ("divergence", "first")
        off = off or far or bool(inputs)
        faults += inputs
        if shown is not None:
            measured = (error, limit) if shown == "output" and error is not None else (far_off, limits.together[key])
            faults.append(Fault(pair.a, pair.b, shown, *measured, key, output_key(pair.b)))
        arrays.append((x, plain))
        truth = a.wide or (b.wide if exact else None)
        rows.append(ported_row(pair, x, plain, limits.together[key], None if truth is None else exact_x,
                               error if known else None, limit, verdict))  # fmt: skip
    if not rows:
        raise VitportError(
            f"Of no pair of stages it is known how the axes of {a.capture.title} lie in {b.capture.title}: pair "
            "stages of other shapes, or give a transpose, as in `conv = conv.transpose(0, 3, 1, 2)`."
        )
    evidence = Evidence(a, b, aligned, alone)
    faults = _merged([fault.because(*causes(fault, evidence)) for fault in faults])
    taken_a, taken_b = {pair.a for pair in pairs}, {pair.b for pair in pairs}
    only_a = tuple(name for name in a.best.outputs if name not in taken_a)
    only_b = tuple(name for name in b.best.outputs if name not in taken_b)
    return Porting(a.capture, b.capture, pairs, tuple(rows), tuple(faults), only_a, only_b, exact, tuple(arrays))


def _alone(a: Side, b: Side, aligned: Aligned, limits: Limits) -> tuple[Observed | None, dict[Key, float]]:
    """B with A's values in place, and how far rounding takes each stage by itself."""
    if b.model is None or a.model is None or not aligned.a.values:
        return None, {}
    exact = aligned.b is b.wide
    try:
        alone = b.model.run(wide=exact, forced=aligned.forced())
    except VitportError:
        return None, {}
    found = dict.fromkeys(aligned.a.values, MARGIN * 2 * limits.growth * limits.u)
    if a.wide is not None:
        moved = a.model.run(wide=True, shake=limits.u, forced=aligned.own())
        for key, array in a.wide.values.items():
            if key in moved.values and array.size and array.dtype.kind == "f":
                share = apart(moved.values[key], array)
                found[key] = MARGIN * 2 * max(share, limits.u) * (1.0 if exact else limits.growth)
    return alone, found


def _wrong_inputs(pair: Pair, aligned: Aligned, alone: Observed | None, limits: dict[Key, float]) -> list[Fault]:
    """What a stage would be given if all stages before it were A's, and is not what A's is given."""
    found: list[Fault] = []
    stage = output_key(pair.b)[0]
    if alone is None or stage == ROOT:
        return found
    for slot, (source, layout) in aligned.slots.items():
        if slot[0] != stage or slot not in alone.values:
            continue
        x = aligned.a.values[source]
        value = alone.values[slot]
        error = apart(layout.to_a(value, x.shape), x) if value.size == x.size else math.inf
        if not error <= limits.get(source, math.inf):
            found.append(Fault(pair.a, pair.b, "input", error, limits[source], source, slot))
    return found


def _merged(faults: list[Fault]) -> list[Fault]:
    """One fault for what the code of one module does wrong between its parts: the first place where it shows.

    What has a cause of its own is a fault of its own.
    """
    kept: list[Fault] = []
    for fault in faults:
        if fault.causes or not any(fault.shows(earlier) for earlier in kept):
            kept.append(fault)
    return kept
