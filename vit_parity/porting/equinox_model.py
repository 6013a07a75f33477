"""Equinox's modules: where they stand in the model, and what they hold.

They are trees, which ``filter_jit`` and scans take apart and make anew; so a module is known by its place among the
parts of the module that calls it.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_parity.porting.jax_tagging import named_leaf
from vit_parity.porting.stages import ROOT, Parts
from vit_spec import VitportError


def equinox_module(model: Any) -> Any | None:
    """The Equinox module that a model is, or that it calls: ``jax.vmap(module)``, ``equinox.filter_jit(module)``."""
    equinox = sys.modules.get("equinox")
    while equinox is not None and model is not None:
        inner = getattr(model, "__wrapped__", None)
        if isinstance(model, equinox.Module) and inner is None:
            return model
        model = inner
    return None


def path_of(whole: Any, module: Any, above: list[tuple[Any, str]]) -> str | None:
    """The path of a module that is called.

    Args:
        whole: the model; ``None`` if it is a function of the user's own.
        module: what is called.
        above: the modules whose calls it is in, with their paths.

    Returns:
        Attributes and places, joined by dots. A module that stands in none of those above, as in a function or a scan,
        is named after its class. ``None`` for what ``filter_jit`` and ``filter_vmap`` put round a function.
    """
    import jax

    if hasattr(module, "__wrapped__"):
        return None
    for caller, path in reversed(above):
        places, _ = jax.tree_util.tree_flatten_with_path(caller, is_leaf=lambda leaf: leaf is module)
        for place, leaf in places:
            if leaf is module:
                return ".".join(([] if path == ROOT else [path]) + [named_leaf(place)])
    if not above and type(module) is type(whole):
        return ROOT
    last = above[-1][1] if above else ROOT
    return type(module).__name__ if last == ROOT else f"{last}.{type(module).__name__}"


def held(module: Any) -> tuple[list[Any], Callable[[list[Any]], Callable[..., Any]], list[str | None]]:
    """The arrays of a module, what makes the module of other ones, and their names."""
    import equinox
    import jax

    arrays, rest = equinox.partition(module, equinox.is_array)
    leaves, tree = jax.tree_util.tree_flatten_with_path(arrays)
    names: list[str | None] = [named_leaf(path) for path, _ in leaves]
    return [leaf for _, leaf in leaves], lambda given: equinox.combine(jax.tree.unflatten(tree, given), rest), names


def check_random(module: Any) -> None:
    """Raises a VitportError where dropout is switched on."""
    import equinox
    import jax

    def drops(part: Any) -> bool:
        return isinstance(part, equinox.nn.Dropout)

    for part in filter(drops, jax.tree.leaves(module, is_leaf=drops)):
        if not part.inference and not (isinstance(part.p, (int, float)) and part.p == 0):
            raise VitportError(
                "The Equinox model has dropout switched on, so outputs are random: give "
                "equinox.nn.inference_mode(model)."
            )


def part_of(module: Any, path: str) -> Any | None:
    """The part at a path, if there is one."""
    try:
        return functools.reduce(_at, [] if path == ROOT else path.split("."), module)
    except (AttributeError, LookupError, ValueError, TypeError):
        return None


def parts(module: Any) -> Parts:
    """The arrays and plain attributes of a module, of its own; none that are known only while a program runs."""
    import jax
    from jax.core import Tracer

    own = {it.name: getattr(module, it.name, None) for it in dataclasses.fields(module)}
    arrays = {name: np.asarray(it) for name, it in own.items()
              if isinstance(it, (jax.Array, np.ndarray)) and not isinstance(it, Tracer)}  # fmt: skip
    return Parts(arrays, {name: it for name, it in own.items() if isinstance(it, (bool, int, float, str, tuple))})


def _at(part: Any, step: str) -> Any:
    if isinstance(part, dict):
        return part[step]
    return part[int(step)] if isinstance(part, (list, tuple)) else getattr(part, step)
