"""The gradients of two models compared: which are rounding, and where on the way back one is wrong by itself.

The questions are those of :mod:`vit_parity.porting.compare`, asked from the output to the inputs. B goes back once more
with A's values in every stage and A's gradients at every slot: then each parameter's gradient, and each gradient that a
stage passes on, shows that stage alone. What is wrong in the forward pass already is accused there, not here again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.porting.aligned import Aligned
from vit_parity.porting.findings import Fault, owner
from vit_parity.porting.gradient_findings import Gradients
from vit_parity.porting.gradient_verdicts import Item, Regions, Runs, judged
from vit_parity.porting.layouts import Layout, apart
from vit_parity.porting.pairs import changed
from vit_parity.porting.parameters import ParameterPair, pair_parameters
from vit_parity.porting.stages import ROOT, Backward, Differentiable, Key, Loss, Observed, Values, output_key
from vit_spec import VitportError

if TYPE_CHECKING:
    from vit_parity.porting.sides import Side

PROJECTION = "a random linear function of the output (normal weights, seed 0; the same for both)"


def compared_gradients(
    a: Side, b: Side, aligned: Aligned, alone: Observed | None, limits: tuple[float, float], faults: Sequence[Fault],
    losses: tuple[Any, Any]
) -> Gradients:  # fmt: skip
    """Compare.

    Args:
        a: the reference.
        b: the other.
        aligned: their stages.
        alone: B with A's values in place.
        limits: the unit roundoff, and the growth of rounding in a sum.
        faults: of the forward pass.
        losses: of both, from the output to a number; ``None`` for a random projection.

    Raises:
        VitportError: if a side cannot be differentiated.
    """
    given = _projection(aligned) if losses[0] is None else losses
    first, second = (_differentiable(side, loss) for side, loss in zip((a, b), given, strict=True))
    plain_a, plain_b = first.run(), second.run()
    wide_a = None if a.wide is None else _wide(first)
    wide_b = None if wide_a is None or b.wide is None else _wide(second)
    exact = wide_b is not None
    best_a, best_b = wide_a or plain_a, wide_b or plain_b
    pairs, only_a, only_b = pair_parameters(
        first.weights, second.weights, best_a.parameters, best_b.parameters, aligned.pairs
    )
    items = list(_items(aligned, alone, pairs, given_root=losses[0] is None))
    items.sort(key=lambda it: -it.place)
    arriving = _arriving(items, aligned, best_a, best_b)
    moved = moved_alone = by_itself = None
    if wide_a is not None:
        moved = first.run(wide=True, shake=limits[0])
        own = {key: best_a.gradients[key] for key in _sources(aligned) if key in best_a.gradients}
        moved_alone = first.run(wide=True, shake=limits[0], forced=aligned.own(), arriving=own)
    if alone is not None:
        by_itself = second.run(wide=exact, forced=aligned.forced(), arriving=arriving)
    dead = any(key in best_b.silent for key in _arriving(items, aligned, best_a, None))
    places = _places(aligned)

    def doubled(place: float) -> Backward:
        more = {key: array * (1 + (places[key] > place)) for key, array in arriving.items()}
        return second.run(wide=exact, forced=aligned.forced(), arriving=more)

    runs = Runs(plain_a, plain_b, best_a, best_b, by_itself, moved, moved_alone, exact, None if dead else doubled)
    rows, found = judged(items, runs, limits, Regions(aligned, best_b, arriving, faults))
    loss = PROJECTION if losses[0] is None else "the loss given"
    unseen = tuple(side.capture.title for side, back in ((a, best_a), (b, best_b)) if not back.gradients)
    frozen = (*first.frozen, *second.frozen)
    return Gradients(loss, tuple(row for row, _ in rows), tuple(found), only_a, only_b, frozen, unseen,
                     tuple(arrays for _, arrays in rows))  # fmt: skip


def check_differentiable(side: Side) -> None:
    """Refuse what has no gradients.

    Raises:
        VitportError: for a capture and a graph.
    """
    if type(side.model).__name__ not in ("TorchModel", "JaxModel"):
        what = "a capture" if side.model is None else "an ONNX graph"
        raise VitportError(
            f"{side.capture.title} is {what}, which has no gradients: compare two models in PyTorch or JAX, or leave "
            "out gradients."
        )


def _differentiable(side: Side, loss: Loss) -> Differentiable:
    if type(side.model).__name__ == "TorchModel":
        from vit_parity.porting.torch_backward import TorchBackward

        return TorchBackward(side.model, loss)  # pyright: ignore[reportArgumentType]
    from vit_parity.porting.jax_backward import JaxBackward

    return JaxBackward(side.model, loss)  # pyright: ignore[reportArgumentType]


def _wide(model: Differentiable) -> Backward | None:
    try:
        return model.run(wide=True)
    except VitportError:  # an operation whose derivative has no float64
        return None


def _projection(aligned: Aligned) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights of the elements of both outputs, the same in the axes of each."""
    rng = np.random.default_rng(0)
    first: dict[str, np.ndarray] = {}
    second: dict[str, np.ndarray] = {}
    for pair in aligned.pairs:
        (stage_a, slot_a), (stage_b, slot_b) = output_key(pair.a), output_key(pair.b)
        layout = aligned.layouts[pair.name]
        if stage_a == stage_b == ROOT and layout is not None:
            for slots, slot, seen in ((first, slot_a, aligned.a), (second, slot_b, aligned.b)):
                slots.setdefault(slot, np.zeros(seen.values[ROOT, slot].shape))
            part_a, part_b = changed(first[slot_a], pair.of_a), changed(second[slot_b], pair.of_b)
            weights = rng.standard_normal(part_a.shape)
            part_a[...], part_b[...] = weights, layout.to_b(weights).reshape(part_b.shape)
    if not first:
        raise VitportError(
            "The outputs of both models must be a pair for their gradients to be compared: add `output = output` to "
            "the pairs, or give a loss."
        )
    return first, second


def _items(
    aligned: Aligned, alone: Observed | None, pairs: Sequence[ParameterPair], *, given_root: bool
) -> Iterator[Item]:
    places = {key: at for at, key in enumerate(aligned.a.values)}
    split = _split(aligned)
    for pair in aligned.pairs:
        key_a, key_b = output_key(pair.a), output_key(pair.b)
        layout = aligned.layouts[pair.name]
        if layout is not None and key_b not in split and not (given_root and key_a[0] == ROOT):
            turned = _gradient(key_b, pair.of_b, layout, aligned.value_a(pair).shape)
            yield Item("output", pair.name, pair.b + pair.of_b, key_b[0], places[key_a],
                       _gradient(key_a, pair.of_a), turned)  # fmt: skip
    for slot, (source, layout) in aligned.slots.items():
        x = aligned.a.values[source]
        seen = [run.values[slot] for run in (aligned.b, alone) if run is not None and slot in run.values]
        same = any(y.size == x.size and apart(layout.to_b(x), y) <= aligned.near for y in seen)
        if same and slot not in split and slot[0] != ROOT:
            yield Item("input", source[0], slot[0], slot[0], places[source], _gradient(source),
                       _gradient(slot, "", layout, x.shape))  # fmt: skip
    stages = {output_key(pair.b)[0]: output_key(pair.a)[0] for pair in aligned.pairs}
    for it in pairs:
        around = [it.a.stage, stages.get(it.b.stage, ""), *_around(it.a.stage)]
        name = next((at for at in around if (at, ">0") in places), None)
        place = -1.0 if name in (None, ROOT) else places[name, ">0"] - 0.5  # the model's own, and its inputs, are last

        def of_a(run: Backward, it: ParameterPair = it) -> np.ndarray:
            return it.a.of(run.parameters[it.a.name])

        def of_b(run: Backward, it: ParameterPair = it) -> np.ndarray:
            return it.to_a(run.parameters[it.b.name])

        yield Item("parameter", str(it.a), str(it.b), it.b.stage, place, of_a, of_b)


def _split(aligned: Aligned) -> set[Key]:
    """Slots of B whose value stands more often on one side than on the other, so that each has a part of the gradient.

    Such are queries and keys that one side computes once and the other twice, and a layer that is called twice.
    """
    found: set[Key] = set()
    copies_a, copies_b = _copies(aligned.a), _copies(aligned.b)
    for pair in aligned.pairs:
        key_a, key_b = output_key(pair.a), output_key(pair.b)
        if aligned.layouts[pair.name] is not None and copies_a(key_a) != copies_b(key_b):
            found.add(key_b)
    twice = {stage for stage, _ in found}
    taken = Counter((slot[0], source) for slot, (source, _) in aligned.slots.items())
    for slot, (source, _) in aligned.slots.items():
        if slot[0] in twice or taken[slot[0], source] > 1 or copies_a(source) != copies_b(slot):
            found.add(slot)
    return found


def _copies(seen: Observed) -> Callable[[Key], int]:
    """How many inputs of a stage, or outputs of the calls of a module, hold the same numbers."""
    together: dict[tuple[str, str], list[Key]] = {}

    def group(key: Key) -> tuple[str, str]:
        name, slot = key
        return (name, "<") if slot[0] == "<" else (name.partition("#")[0], slot)

    for key in seen.values:
        together.setdefault(group(key), []).append(key)

    def count(key: Key) -> int:
        x, others = seen.values[key], [other for other in together[group(key)] if other != key]
        return sum(seen.values[other].shape == x.shape and np.array_equal(seen.values[other], x) for other in others)

    return count


def _around(stage: str) -> Iterator[str]:
    while stage != ROOT:
        stage = owner(stage)
        yield stage


def _gradient(
    key: Key, of: str = "", layout: Layout | None = None, shape: tuple[int, ...] = ()
) -> Callable[[Backward], np.ndarray | None]:
    def found(run: Backward) -> np.ndarray | None:
        array = run.gradients.get(key)
        if array is None:
            return None
        array = changed(array, of)
        if layout is None:
            return array
        return layout.to_a(array, shape) if math.prod(shape) == array.size else None

    return found


def _sources(aligned: Aligned) -> Iterator[Key]:
    """Slots of A whose gradients are given to B."""
    yield from (output_key(pair.a) for pair in aligned.pairs)
    yield from (source for source, _ in aligned.slots.values())


def _arriving(items: Sequence[Item], aligned: Aligned, of_a: Backward, of_b: Backward | None) -> Values:
    """A's gradients in B's axes, for every slot that both have and B goes on from."""
    put: Values = {}
    covered: Values = {}
    split = _split(aligned)
    for pair in aligned.pairs:
        layout, key, array = aligned.layouts[pair.name], output_key(pair.b), of_a.gradients.get(output_key(pair.a))
        if layout is None or array is None or key in split:
            continue
        if key not in put:
            put[key] = np.zeros(aligned.b.values[key].shape, array.dtype)
            covered[key] = np.zeros(put[key].shape, bool)
        part, there = changed(put[key], pair.of_b), changed(covered[key], pair.of_b)
        if np.shares_memory(part, put[key]) and part.size == math.prod(layout.shape):
            part[...] = layout.to_b(changed(array, pair.of_a)).reshape(part.shape)
            there[...] = True
    inputs = {(it.stage, it.a) for it in items if it.of == "input"}
    found = {key: array for key, array in put.items() if covered[key].all()} | {
        slot: layout.to_b(of_a.gradients[source]) for slot, (source, layout) in aligned.slots.items()
        if (slot[0], source[0]) in inputs and source in of_a.gradients
    }  # fmt: skip
    return {key: array for key, array in found.items()
            if of_b is None or (key in of_b.gradients and key not in of_b.silent)}  # fmt: skip


def _places(aligned: Aligned) -> dict[Key, int]:
    """Slot of B → where A computes it."""
    order = {key: at for at, key in enumerate(aligned.a.values)}
    outputs = {output_key(pair.b): order[output_key(pair.a)] for pair in aligned.pairs}
    return outputs | {slot: order[source] for slot, (source, _) in aligned.slots.items()}
