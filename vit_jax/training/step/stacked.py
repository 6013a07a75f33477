"""The blocks of a segment as one: a parameter's blocks in one array, for ``jax.lax.scan``.

``blocks/0/attn/qkv/kernel``, ``blocks/1/attn/qkv/kernel`` and so on, (D, 3 D) each, become
``blocks/*/attn/qkv/kernel``, (count, D, 3 D), in every dictionary by path: parameters, moments, averages. Training
keeps blocks stacked between steps, so that no step stacks parameters or unstacks gradients. Checkpoints store them
separately.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vit_jax.params import parameters_by_path
from vit_spec import Config, Parameter, Segment

Segments = Sequence[Segment]
Join = Callable[[Sequence[jax.Array]], jax.Array]
Split = Callable[[jax.Array], Sequence[jax.Array]]
_STACKED = "/*/"


def stack(tree: Any, segments: Segments, join: Join = jnp.stack) -> Any:
    """The same tree with stacked blocks.

    A leaf that optax masks out in every block stays masked; if only some blocks lack it, zeros stand for it there.

    Args:
        join: stacks the arrays of one parameter.
    """
    return _over_dictionaries(partial(_together, segments, join), tree, segments)


def unstack(tree: Any, segments: Segments, masked: Collection[str] = (), split: Split = list) -> Any:
    """The inverse of :func:`stack`.

    Args:
        masked: paths that have no value in an optimizer's state.
        split: gives the blocks' arrays of a stacked one.
    """

    def apart(by_path: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for path, leaf in by_path.items():
            names = single_paths(path, _count(path, segments))
            values = split(leaf) if is_stacked(path) and not _is_masked(leaf) else [leaf] * len(names)
            for name, value in zip(names, values, strict=True):
                result[name] = optax.MaskedNode() if name in masked else value
        return result

    return _over_dictionaries(apart, tree, segments)


def is_stacked(path: str) -> bool:
    """Whether a path stands for the blocks of a segment."""
    return _STACKED in path


def stacked_path(segment: Segment, path: str) -> str:
    """The path of a segment's stacked parameter.

    Args:
        path: within the block.
    """
    return _prefix(segment) + _STACKED + path


def single_path(segment: Segment, index: int, path: str) -> str:
    """The path of a parameter of one block."""
    return f"{_prefix(segment)}/{index}/{path}"


def single_paths(path: str, count: int) -> list[str]:
    """The paths of the ``count`` blocks that a stacked path stands for, or the path itself."""
    return [path.replace(_STACKED, f"/{at}/") for at in range(count)] if is_stacked(path) else [path]


def parameter_at(path: str, config: Config) -> Parameter:
    """What is known of a parameter; a stacked one is like each of its blocks."""
    return parameters_by_path(config)[single_paths(path, 1)[0]]


def each_block(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation that reads whole parameters, applied to each block separately where blocks are stacked."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        axes = tuple(_axes(tree) for tree in (updates, state, params))
        if not jax.tree.leaves(axes):
            return inner.update(updates, state, params)
        # Leaves without that axis are computed once.
        return jax.vmap(inner.update, in_axes=axes, out_axes=axes[:2])(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def block_by_block(inner: optax.GradientTransformation, segments: Segments) -> optax.GradientTransformation:
    """An elementwise transformation, such as Adam's, traced for one block of a segment and applied to all.

    Over the parameters of a large model at once it would be thousands of operations.

    Args:
        inner: its masks get the paths of one block as :func:`stack` names them.
    """
    compiled = jax.jit(inner.update)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        places = {path: place for path in updates if (place := _place(path, segments))}
        blocks = sorted({place.block for place in places.values()})
        if not blocks:
            return inner.update(updates, state, params)

        def part(block: tuple[int, int] | None) -> Any:
            return _over_dictionaries(partial(_part, segments, block), (updates, state, params), segments)

        parts = [compiled(*part(block)) for block in blocks]
        rest = inner.update(*part(None))

        def whole(node: Any, rest: Any, *by_block: Any) -> Any:
            """All parts agree on everything but dictionaries by path, such as the number of steps."""
            if not _is_by_path(node, segments):
                return rest
            found = dict(zip(blocks, by_block, strict=True))
            located = {path: _place(path, segments) for path in node}
            return {path: found[at.block][at.stacked] if at else rest[path] for path, at in located.items()}

        return jax.tree.map(whole, (updates, state), rest, *parts, is_leaf=partial(_is_by_path, segments=segments))

    return optax.GradientTransformation(inner.init, update)


class _Place(NamedTuple):
    """Where the parameter of a single block belongs."""

    block: tuple[int, int]
    """Number of the segment, and of the block in it."""
    stacked: str
    """Its path once stacked."""


def _place(path: str, segments: Segments) -> _Place | None:
    for at, segment in enumerate(segments):
        start = f"{_prefix(segment)}/"
        if path.startswith(start):
            number, _, rest = path.removeprefix(start).partition("/")
            if number.isdigit() and rest:
                return _Place((at, int(number)), stacked_path(segment, rest))
    return None


def _prefix(segment: Segment) -> str:
    return segment.prefix.replace(".", "/")


def _count(path: str, segments: Segments) -> int:
    """Number of blocks that a path stands for."""
    return next((segment.count for segment in segments if path.startswith(stacked_path(segment, ""))), 1)


def _part(segments: Segments, block: tuple[int, int] | None, by_path: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of one block under stacked paths, or, for ``None``, those outside blocks."""
    places = {path: _place(path, segments) for path in by_path}
    if block is None:
        return {path: by_path[path] for path, at in places.items() if at is None}
    return {at.stacked: by_path[path] for path, at in places.items() if at and at.block == block}


def _axes(tree: Any) -> Any:
    """0 for stacked leaves, ``None`` for the rest."""

    def axis(keys: tuple[Any, ...], leaf: Any) -> int | None:
        del leaf
        return 0 if any(is_stacked(str(getattr(key, "key", ""))) for key in keys) else None

    return jax.tree_util.tree_map_with_path(axis, tree)


def _over_dictionaries(change: Callable[[Mapping[str, Any]], Any], tree: Any, segments: Segments) -> Any:
    """The tree with every dictionary by path changed."""
    by_path = partial(_is_by_path, segments=segments)
    return jax.tree.map(lambda node: change(node) if by_path(node) else node, tree, is_leaf=by_path)


def _is_by_path(node: Any, segments: Segments) -> bool:
    starts = tuple(f"{_prefix(segment)}/" for segment in segments)
    return isinstance(node, dict) and any(str(key).startswith(starts) for key in node)


def _is_masked(leaf: Any) -> bool:
    return isinstance(leaf, optax.MaskedNode)


def _together(segments: Segments, join: Join, by_path: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    blocks: dict[str, dict[int, Any]] = {}
    for path, leaf in by_path.items():
        if at := _place(path, segments):
            blocks.setdefault(at.stacked, {})[at.block[1]] = leaf
        else:
            result[path] = leaf
    return result | {path: _stacked(join, [leaves[at] for at in range(len(leaves))]) for path, leaves in blocks.items()}


def _stacked(join: Join, leaves: Sequence[Any]) -> Any:
    arrays = [leaf for leaf in leaves if not _is_masked(leaf)]
    if not arrays:
        return optax.MaskedNode()
    return join([jnp.zeros_like(arrays[0]) if _is_masked(leaf) else leaf for leaf in leaves])
