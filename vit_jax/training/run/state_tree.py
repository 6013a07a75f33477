"""A training state as the trees that a checkpoint stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from conversion.tensors.flax_tree import flatten, nest
from vit_jax.training.step.update import TrainState

Outline = dict[str, tuple[tuple[int, ...], str]]
"""Name → shape and dtype, for every array of a state."""


def outline(state: TrainState) -> Outline:
    """The outline of a state, or of its shapes."""
    return outline_of_parts(parts(state))


def outline_of_parts(trees: Mapping[str, Any]) -> Outline:
    """The same of what :func:`parts` returns, or of what a checkpoint says of it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(trees)
    return {"/".join(str(key.key) for key in path): (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves}


def parts(state: TrainState) -> dict[str, Any]:
    """``params``, ``rest`` (step and optimizer state) and, if there is a moving average, ``ema``."""
    optimizer, _ = jax.tree_util.tree_flatten_with_path(state.opt_state)
    rest = {"step": state.step, "optimizer": {_name(path): leaf for path, leaf in optimizer}}
    ema = {} if state.ema is None else {"ema": nest(state.ema)}
    return {"params": nest(state.params), "rest": rest, **ema}


def abstract_parts(state: TrainState) -> dict[str, Any]:
    """Shapes, dtypes and shardings of :func:`parts`."""
    return parts(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state))


def whole(read: Any, like: TrainState) -> TrainState:
    """The inverse of :func:`parts`."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(like.opt_state)
    optimizer = jax.tree.unflatten(tree, [read["rest"]["optimizer"][_name(path)] for path, _ in leaves])
    ema = None if like.ema is None else flatten(read["ema"])
    params = flatten(read["params"])
    # In the order of the run's parameters, which orbax may change.
    ordered = {path: params[path] for path in like.params}
    return TrainState(read["rest"]["step"], ordered, optimizer, ema and {path: ema[path] for path in like.params})


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path).replace(
        "/", "."
    )
