"""The blocks of a model as one, for ``jax.lax.scan``: a parameter's blocks in one array.

``blocks/0/attn/qkv/kernel``, ``blocks/1/attn/qkv/kernel`` and so on, (D, 3 D) each, are ``blocks/*/attn/qkv/kernel``,
(depth, D, 3 D), in every dictionary by path: parameters, moments, averages. A step has stacked ones for good, so that
neither its parameters are stacked nor their gradients taken apart in it; checkpoints never do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

STACKED = "blocks/*/"
_BLOCK = re.compile(r"blocks/(\d+)/(.+)")


def stack(tree: Any) -> Any:
    """The same tree with stacked blocks.

    What optax masks out stays so where no block has a value; beside blocks that have one it is zeros.
    """
    return _over_dictionaries(_together, tree)


def unstack(tree: Any, depth: int, masked: Collection[str] = ()) -> Any:
    """The tree that :func:`stack` was given.

    Args:
        depth: number of blocks.
        masked: paths that have no value in an optimizer's state.
    """

    def apart(by_path: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for path, leaf in by_path.items():
            for at, name in enumerate(single_paths(path, depth)):
                value = leaf[at] if path.startswith(STACKED) and not _is_masked(leaf) else leaf
                result[name] = optax.MaskedNode() if name in masked else value
        return result

    return _over_dictionaries(apart, tree)


def single_paths(path: str, depth: int) -> list[str]:
    """The paths that one stands for: as many as there are blocks, or itself."""
    if not path.startswith(STACKED):
        return [path]
    return [f"blocks/{at}/{path.removeprefix(STACKED)}" for at in range(depth)]


def each_block(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation that looks at whole parameters, of each block by itself where they are stacked."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        axes = tuple(_axes(tree) for tree in (updates, state, params))
        if not jax.tree.leaves(axes):
            return inner.update(updates, state, params)
        # What has no such axis is computed once.
        return jax.vmap(inner.update, in_axes=axes, out_axes=axes[:2])(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def block_by_block(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation that looks at each number by itself, such as Adam's, traced for one block and used for all: of a
    large model's parameters one by one it would be thousands of operations.

    Args:
        inner: its masks are given the paths of a block as :func:`stack` names them.
    """
    compiled = jax.jit(inner.update)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        numbers = sorted({int(found[1]) for found in map(_BLOCK.fullmatch, updates) if found})
        if not numbers:
            return inner.update(updates, state, params)
        parts = [compiled(*_over_dictionaries(partial(_part, at), (updates, state, params))) for at in numbers]
        rest = inner.update(*_over_dictionaries(partial(_part, None), (updates, state, params)))

        def whole(node: Any, rest: Any, *blocks: Any) -> Any:
            """Of what is no dictionary by path, such as the number of steps, all parts have the same."""
            if not _is_by_path(node):
                return rest
            of = dict(zip(numbers, blocks, strict=True))
            found = {path: _BLOCK.fullmatch(path) for path in node}
            return {path: of[int(at[1])][STACKED + at[2]] if at else rest[path] for path, at in found.items()}

        return jax.tree.map(whole, (updates, state), rest, *parts, is_leaf=_is_by_path)

    return optax.GradientTransformation(inner.init, update)


def _part(at: int | None, by_path: Mapping[str, Any]) -> dict[str, Any]:
    """What one block has, or, where there is no number, what none has."""
    found = {path: _BLOCK.fullmatch(path) for path in by_path}
    if at is None:
        return {path: by_path[path] for path, block in found.items() if not block}
    return {STACKED + block[2]: by_path[path] for path, block in found.items() if block and int(block[1]) == at}


def _axes(tree: Any) -> Any:
    """0 for what is stacked, ``None`` for the rest."""

    def axis(keys: tuple[Any, ...], leaf: Any) -> int | None:
        del leaf
        return 0 if any(str(getattr(key, "key", "")).startswith(STACKED) for key in keys) else None

    return jax.tree_util.tree_map_with_path(axis, tree)


def _over_dictionaries(change: Callable[[Mapping[str, Any]], Any], tree: Any) -> Any:
    """Every dictionary by path of a tree, changed."""
    return jax.tree.map(lambda node: change(node) if _is_by_path(node) else node, tree, is_leaf=_is_by_path)


def _is_by_path(node: Any) -> bool:
    return isinstance(node, dict) and any(str(key).startswith("blocks/") for key in node)


def _is_masked(leaf: Any) -> bool:
    return isinstance(leaf, optax.MaskedNode)


def _together(by_path: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    blocks: dict[str, dict[int, Any]] = {}
    for path, leaf in by_path.items():
        if found := _BLOCK.fullmatch(path):
            blocks.setdefault(STACKED + found[2], {})[int(found[1])] = leaf
        else:
            result[path] = leaf
    return result | {path: _stacked([leaves[at] for at in range(len(leaves))]) for path, leaves in blocks.items()}


def _stacked(leaves: Sequence[Any]) -> Any:
    arrays = [leaf for leaf in leaves if not _is_masked(leaf)]
    if not arrays:
        return optax.MaskedNode()
    return jnp.stack([jnp.zeros_like(arrays[0]) if _is_masked(leaf) else leaf for leaf in leaves])
