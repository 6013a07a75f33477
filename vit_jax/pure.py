"""A module as a pure function of a flat dictionary of its parameters."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from vit_jax.params import get_params

Params = dict[str, jax.Array]
"""Parameters by path, as :func:`vit_jax.get_params` names them."""


class Pure:
    """A module without its parameters, which are an argument of each call; the module itself is never changed."""

    def __init__(self, module: nnx.Module) -> None:
        self._graph, params, self._rest = nnx.split(module, nnx.Param, ...)
        self.paths = list(get_params(module))
        self.shapes = [leaf.shape for leaf in get_params(module).values()]
        self._tree = jax.tree.structure(params)

    def __call__(self, params: Params) -> Any:
        """The module with these parameters; other paths are ignored."""
        state = jax.tree.unflatten(self._tree, [params[path] for path in self.paths])
        return nnx.merge(self._graph, state, self._rest)
