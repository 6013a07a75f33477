"""A graph read as a Swin Transformer: its config and its canonical weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from conversion.graph.expression import Expression, View
from conversion.graph.graph import NotUnderstoodError, RecognisedError
from conversion.graph.layers import Layers, Norm
from conversion.graph.patches import Patches, patches_of
from conversion.graph.reading import Reading
from conversion.graph.swin.attention import is_windowed
from conversion.graph.swin.body import BodyReader, Stage
from conversion.graph.swin.head import Head, head_of
from conversion.graph.swin.model import Model, Patched
from conversion.graph.trace import Trace


def read(found: Trace) -> Reading:
    """Find the Swin Transformer in a trace.

    Raises:
        RecognisedError: if it is a Swin Transformer, with the node that is not understood.
        NotUnderstoodError: if it has no attention within windows.
    """
    layers, everything = Layers(), _behind(found)
    tokens = [at.shape[-2] for at in everything if is_windowed(at, layers)]
    if not tokens:
        raise NotUnderstoodError("The graph has no attention with a bias on its scores, as Swin Transformers have.")
    try:
        return _reading(found, layers)
    except NotUnderstoodError as error:
        if min(tokens) >= _patches(everything, layers):  # all of them at once
            raise
        raise RecognisedError(f"This graph looks like a Swin Transformer's. {error}") from error


def _reading(found: Trace, layers: Layers) -> Reading:
    batch = found.image.shape[0]
    heads: dict[str, Head] = {}
    errors: dict[str, NotUnderstoodError] = {}
    for name, value in found.outputs.items():
        try:
            if not isinstance(value, View) or not value.expression.varies or value.expression.kind == "unknown":
                raise NotUnderstoodError(
                    f"The graph's output {name!r} depends on {(found.unknown or ('no image',))[0]}, which is not read."
                )
            heads[name] = head_of(value, layers, batch)
        except NotUnderstoodError as error:
            errors[name] = error
    if not heads:
        raise next(iter(errors.values()))
    name = max(heads, key=lambda it: (heads[it].layer is not None, heads[it].pooled, heads[it].norm is not None))
    head = heads[name]
    for other, error in errors.items():
        if head.layer is None and len(found.outputs[other].shape) == 2:  # it may be the head
            raise error
    embedding, stages = BodyReader(layers).body(head.tokens)
    patched = _patched(embedding, layers)
    model = Model(patched, stages, head, layers, batch)
    notes = [f"set aside the graph's output {it}: {str(error).removesuffix('.')}" for it, error in errors.items()]
    if found.dequantised:
        notes.append(f"dequantised {found.dequantised} weights by their scales")
    return Reading(
        model.config.to_dict() | {"num_classes": model.config.num_classes},
        model.tensors(),
        (*notes, *model.notes),
        patched.patches.channels_last,
        _stages(embedding, stages, head, name, batch),
    )


def _patched(at: Expression, layers: Layers) -> Patched:
    """What enters the first block."""
    table: np.ndarray | None = None
    step = layers.step(at)
    if layers.norm(at) is None and patches_of(at, layers) is None and step.kind == "shift" and step.x is not None:
        by, at = step.by, step.x
        assert by is not None
        table = np.broadcast_to(by, (*by.shape[:-1], at.shape[-1])).reshape(-1, at.shape[-1])
    norm: Norm | None = layers.norm(at)
    if norm is not None:
        at = norm.x.expression if norm.x.order is None else at
    patches: Patches | None = patches_of(at, layers)
    if patches is None:
        raise NotUnderstoodError(
            f"The graph's {at.place or at.kind} is where a block, a layer that merges patches, or the patch projection "
            "of a Swin Transformer was expected."
        )
    if table is not None and len(table) != patches.grid[0] * patches.grid[1]:
        raise NotUnderstoodError(f"The graph adds {len(table)} positions to {patches.grid} patches.")
    return Patched(patches, norm, table)


def _stages(embedding: Expression, stages: tuple[Stage, ...], head: Head, output: str, batch: int) -> Mapping[str, str]:
    """The stages that are named values of the graph."""
    found: dict[str, Expression | None] = {"embed": embedding}
    for number, stage in enumerate(stages):
        found |= {f"layers.{number}.blocks.{at}": it for at, it in enumerate(stage.sums[1::2])}
    found["norm"] = head.normed
    values = {name: it.value for name, it in found.items() if it is not None and it.value and len(it.shape) in (3, 4)}
    if head.pooled and head.output is not None:
        values["head"] = head.output.value if head.softmax else output
    return {name: value for name, value in values.items() if value}


def _patches(everything: list[Expression], layers: Layers) -> int:
    """Number of patches of an image; 0 if there are none."""
    for at in everything:
        try:
            found = patches_of(at, layers) if at.kind == "linear" else None
        except NotUnderstoodError:
            continue
        if found is not None:
            return found.grid[0] * found.grid[1]
    return 0


def _behind(found: Trace) -> list[Expression]:
    """Every expression that the outputs depend on."""
    seen: dict[int, Expression] = {}
    waiting = [value.expression for value in found.outputs.values() if isinstance(value, View)]
    while waiting:
        at = waiting.pop()
        if at.number not in seen:
            seen[at.number] = at
            waiting += [view.expression for view in at.views]
    return list(seen.values())
