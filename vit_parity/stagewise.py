"""The same activations a stage at a time: the embedding, each block, the head; none is kept for longer than its stage.

A model of either framework is the composition ``forward_head(norm(blocks(enter(embed(images)))))``. Here its stages are
called one after the other, so that all runs of a comparison can take turns. PyTorch computes the same bits so. JAX
compiles each stage as one function, and equal blocks once; against the model compiled as a whole only rounding differs
(tests/vit_parity/test_stagewise.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.capture import Capture, watched_torch, wrap_jax
from vit_parity.frameworks import jax_dtype, torch_array, torch_images
from vit_parity.points import Point, part, points, stage_of, stage_points, stages
from vit_spec import Config, segments

if TYPE_CHECKING:
    from vit_jax import VisionModel as JaxModel
    from vit_torch import VisionModel as TorchModel

Stages = Iterator[tuple[str, dict[str, np.ndarray]]]
"""The stages (:func:`vit_parity.points.stages`) in order, each with its activations in the order of computation."""


def torch_stages(model: TorchModel, images: np.ndarray, observed: Sequence[Point] | None = None) -> Stages:
    """Run the PyTorch model.

    Args:
        model: in evaluation mode; the hooks are removed again.
        images: (B, H, W, C), preprocessed; converted to the model's dtype, device and layout here.
        observed: the activations to give; every one if not given.
    """
    import torch

    config, (first, *_, last) = model.config, stage_points(model.config)
    wanted, blocks = by_stage(config, observed), _blocks(model)
    x = torch_images(images, next(model.parameters()))

    def compute(stage: str, x: Any) -> tuple[Any, dict[str, np.ndarray]]:
        watched = wanted[stage]
        if stage == stages(config)[0]:
            x = found[first.name] = model.enter(0, model.embed(x))
        elif stage in blocks:
            entered, block = blocks[stage]
            x = block(x if entered is None else model.enter(entered, x))
        else:
            x = model.forward_head(model.norm(x))
            found.update({point.name: x for point in watched if point.module == last.module})
        made = {at.name: part(found[at.name], at, config, found.get(at.beside)) for at in watched}
        found.clear()
        return x, {name: torch_array(made.pop(name)) for name in list(made)}

    with ExitStack() as ends:
        found = watched_torch(model, [point for watched in wanted.values() for point in watched], ends)
        for stage in wanted:
            with torch.no_grad():
                x, arrays = compute(stage, x)
            yield stage, arrays


def jax_stages(
    model: JaxModel, images: np.ndarray, observed: Sequence[Point] | None = None, *, precision: str = "highest"
) -> Stages:
    """Run the JAX model, each stage compiled as one function.

    Args:
        model: in evaluation mode; it is not changed.
        images: (B, H, W, C), preprocessed; converted to the model's dtype here.
        observed: the activations to give; every one if not given.
        precision: of matrix products, as ``jax.default_matmul_precision`` takes it.
    """
    import jax
    from flax import nnx

    config, (first, *_, last) = model.config, stage_points(model.config)
    blocks, whole = _blocks(model), nnx.split(model)

    def run(step: _Step, parts: tuple[Any, Any], watched: Sequence[Point], given: Any, at: int = 0) -> Any:
        graph, state = parts
        return _compiled(step)(graph, tuple(watched), config, at, state, given)

    def compute(stage: str, watched: list[Point], x: Any) -> tuple[Any, dict[str, np.ndarray]]:
        if stage == stages(config)[0]:
            x, found = run(_embed, whole, [point for point in watched if point != first], x)
            found[first.name] = x
        elif stage in blocks:
            entered, block = blocks[stage]
            inside = [point for point in watched if point.module.startswith(stage)]
            found = {}
            if entered is not None:  # what a family does before a segment, such as merging patches
                x, found = run(_enter, whole, [point for point in watched if point not in inside], x, entered)
            x, inner = run(_block, nnx.split(block), [_within(point, stage) for point in inside], x)
            found |= {f"{stage}{name}": array for name, array in inner.items()}
        else:
            x, found = run(_head, whole, [point for point in watched if point.module != last.module], x)
            found |= {point.name: x for point in watched if point.module == last.module}
        return x, {point.name: np.asarray(found[point.name]) for point in watched}

    with jax_dtype(np.dtype(model.dtype).name):
        x = jax.numpy.asarray(images, model.dtype)
    for stage, watched in by_stage(config, observed).items():
        with jax_dtype(np.dtype(model.dtype).name), jax.default_matmul_precision(precision):
            x, arrays = compute(stage, watched, x)
        yield stage, arrays


def captured_stages(capture: Capture) -> Stages:
    """The stages of a capture, each with its activations in the capture's order."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in capture.activations.items():
        found.setdefault(stage_of(name), {})[name] = array
    yield from found.items()


def by_stage(config: Config, observed: Sequence[Point] | None = None) -> dict[str, list[Point]]:
    """Every stage, and what is observed in it."""
    found: dict[str, list[Point]] = {stage: [] for stage in stages(config)}
    for point in observed or points(config):
        found[stage_of(point.name)].append(point)
    return found


def _blocks(model: Any) -> dict[str, tuple[int | None, Any]]:
    """Name → the segment that it begins, if it begins any but the first, and the block."""
    found = {}
    for at, (segment, blocks) in enumerate(zip(segments(model.config), model.segments(), strict=True)):
        for index, block in enumerate(blocks):
            found[segment.block(index)] = (at or None if index == 0 else None, block)
    return found


def _within(point: Point, block: str) -> Point:
    """The same in every block: names and paths begin behind the block's."""

    def cut(path: str) -> str:
        return path.removeprefix(block).removeprefix(".")

    return dataclasses.replace(
        point, name=point.name.removeprefix(block), module=cut(point.module), beside=cut(point.beside)
    )


_Step = Callable[[Any, int, Any], Any]
"""(model or block, segment, input) -> output."""


def _embed(model: Any, at: int, images: Any) -> Any:
    return model.enter(at, model.embed(images))


def _enter(model: Any, at: int, tokens: Any) -> Any:
    return model.enter(at, tokens)


def _block(block: Any, at: int, tokens: Any) -> Any:
    del at
    return block(tokens)


def _head(model: Any, at: int, tokens: Any) -> Any:
    del at
    return model.forward_head(model.norm(tokens))


@cache
def _compiled(step: _Step) -> Callable[..., Any]:
    """``run(graph, watched, config, segment, state, x)``: the output and the activations. Equal blocks share it."""
    import jax
    from flax import nnx

    def run(graph: Any, watched: tuple[Point, ...], config: Config, at: int, state: Any, x: Any) -> Any:
        copy = nnx.merge(graph, state)
        found: dict[str, Any] = {}
        wrap_jax(copy, watched, found)
        y = step(copy, at, x)
        found |= {point.name: y for point in watched if not point.module}
        return y, {point.name: part(found[point.name], point, config, found.get(point.beside)) for point in watched}

    return jax.jit(run, static_argnums=(0, 1, 2, 3))
