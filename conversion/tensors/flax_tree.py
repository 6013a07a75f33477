"""Canonical names and PyTorch's axes ↔ the Flax tree's paths and JAX's axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.tensors.rules import Rule, Rules, flax_leaf
from conversion.tensors.table import TensorTable
from vit_spec import Config, ViTConfig, VitportError, flax_path

_ANY = ViTConfig()
"""The layout of the Flax tree does not depend on the config."""


def to_flax(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Canonical arrays under Flax paths (``blocks/0/attn/qkv/kernel``) and in JAX's axes.

    Linear (out, in) → (in, out); convolution (out, in, h, w) → (h, w, in, out). Dtypes do not change; transposed arrays
    are views.
    """
    result: dict[str, np.ndarray] = {}
    for name, array in params.items():
        rule = flax_leaf(name, array.ndim)
        (result[str(rule.foreign)],) = rule.transform.from_canonical([array], _ANY)
    return result


def from_flax(tree: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of :func:`to_flax`, bit for bit.

    Raises:
        VitportError: for a path that is not the Flax path of a canonical name.
    """
    result: dict[str, np.ndarray] = {}
    for path, array in tree.items():
        name = canonical_name(path, array.ndim)
        (result[name],) = flax_leaf(name, array.ndim).transform.to_canonical([array])
    return result


def canonical_name(path: str, axes: int) -> str:
    """The canonical name of a Flax path.

    Raises:
        VitportError: if no canonical name of a tensor with that many axes has this path.
    """
    *modules, leaf = path.split("/")
    name = ".".join([*modules, "weight" if leaf in ("kernel", "scale") else leaf])
    if (expected := flax_path(name, axes)) != path:
        raise VitportError(f"{path} with {axes} axes is not a path of a Flax tree; expected {expected}.")
    return name


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a/b": x}`` → ``{"a": {"b": x}}``."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def flatten(tree: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """The inverse of :func:`nest`."""
    flat: dict[str, Any] = {}
    for key, node in tree.items():
        path = f"{at}/{key}" if at else str(key)
        flat |= flatten(node, path) if isinstance(node, Mapping) else {path: node}
    return flat


class FlaxTree:
    """The Flax tree as a format: one rule per canonical name, made from the name and its number of axes."""

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        """Canonical table of a flattened tree, and the paths that no canonical name has."""
        rules: list[Rule] = []
        unknown: list[str] = []
        for path, shape in table.shapes.items():
            try:
                rules.append(flax_leaf(canonical_name(path, len(shape)), len(shape)))
            except VitportError:
                unknown.append(path)
        canonical, _ = Rules(rules).read(table.without(set(unknown)))
        return canonical, unknown

    def write(self, table: TensorTable, config: Config) -> TensorTable:
        """The flattened tree of canonical tensors."""
        return Rules([flax_leaf(name, len(shape)) for name, shape in table.shapes.items()]).write(table, config)

    def foreign_name(self, canonical: str, axes: int) -> str:
        """The path of a canonical name."""
        return flax_path(canonical, axes)
