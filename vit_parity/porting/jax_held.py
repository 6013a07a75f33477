"""What a model in JAX holds: its arrays, with the function that they make, and the parameters of each module."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_parity.porting import equinox_model
from vit_parity.porting.equinox_model import equinox_module
from vit_parity.porting.jax_tagging import PATH, is_array, is_leaf, named_leaf
from vit_parity.porting.masks import masks_are_known
from vit_parity.porting.stages import ROOT, Parts
from vit_spec import VitportError

Held = tuple[list[Any], Callable[[list[Any]], Callable[..., Any]], list[str | None]]
"""Arrays, what makes the function of the inputs from them, and the names of those that are trained."""


def held(model: Any) -> Held:
    """The arrays of a model, and the function that they make."""
    import jax

    function: Any = model
    if is_a(model, "flax.nnx", "Module"):
        from flax import nnx

        if not masks_are_known():
            _check_random(model)
        graph, state = nnx.split(model)
        leaves, tree = jax.tree.flatten(state)
        trained = {id(it.get_value()): ".".join(map(str, path)) for path, it in nnx.to_flat_state(state)
                   if isinstance(it, nnx.Param)}  # fmt: skip

        def made(arrays: list[Any]) -> Callable[..., Any]:
            copy: Any = nnx.merge(graph, jax.tree.unflatten(tree, arrays))
            for path, module in nnx.iter_modules(copy):
                setattr(module, PATH, ".".join(map(str, path)) or ROOT)
            return copy

        return leaves, made, [trained.get(id(leaf)) for leaf in leaves]
    if (module := equinox_module(model)) is not None:
        if not masks_are_known():
            equinox_model.check_random(module)
        if module is model:
            return equinox_model.held(module)
    if is_a(model, "keras", "Model"):
        trained, others = model.trainable_variables, model.non_trainable_variables

        def stateless(arrays: list[Any]) -> Callable[..., Any]:
            first, second = arrays[: len(trained)], arrays[len(trained) :]
            return lambda *args, **kwargs: model.stateless_call(first, second, *args, **kwargs)[0]

        names: list[str | None] = [".".join(it.path.split("/")[1:]) for it in trained]
        return [it.value for it in [*trained, *others]], stateless, [*names, *[None] * len(others)]
    if is_a(model, "flax.linen", "Module"):  # bound
        model = model.unbind()
    if isinstance(model, tuple) and len(model) == 2 and is_a(model[0], "flax.linen", "Module"):
        module, variables = model
        with_paths, tree = jax.tree_util.tree_flatten_with_path(variables)
        names = [named_leaf(path[1:]) if named_leaf(path[:1]) == "params" else None for path, _ in with_paths]
        return (
            [leaf for _, leaf in with_paths],
            lambda arrays: functools.partial(module.apply, jax.tree.unflatten(tree, arrays)),
            names,
        )
    if isinstance(model, functools.partial):  # its arguments are most likely the parameters
        given, tree = jax.tree_util.tree_flatten_with_path((model.args, model.keywords), is_leaf=is_leaf)
        leaves = [leaf for _, leaf in given]
        places = [at for at, leaf in enumerate(leaves) if is_array(leaf)]

        def filled(arrays: list[Any]) -> Callable[..., Any]:
            given = list(leaves)
            for at, array in zip(places, arrays, strict=True):
                given[at] = array
            args, kwargs = jax.tree.unflatten(tree, given)
            return functools.partial(model.func, *args, **kwargs)

        return [leaves[at] for at in places], filled, [named_leaf(given[at][0][1:]) for at in places]
    return [], lambda _: function, []


def parts_of(model: Any, path: str, modules: Mapping[str, Any]) -> Parts:
    """The parameters and plain attributes of one module."""
    simple = (bool, int, float, str, tuple)
    if is_a(model, "flax.nnx", "Module"):
        from flax import nnx

        own = vars(modules[path]) if path in modules else {}
        arrays = {name: np.asarray(it.get_value()) for name, it in own.items()
                  if isinstance(it, nnx.Variable) and is_array(it.get_value())}  # fmt: skip
        return Parts(arrays, {name: value for name, value in own.items() if isinstance(value, simple)})
    if is_a(model, "flax.linen", "Module"):
        model = model.unbind()
    if isinstance(model, tuple) and len(model) == 2:
        steps = [] if path == ROOT else path.split(".")
        arrays = {}
        for collection in model[1].values():
            for step in steps:
                collection = collection.get(step, {}) if isinstance(collection, Mapping) else {}
            arrays |= {name: np.asarray(it) for name, it in collection.items() if is_array(it)}
        return Parts(arrays)
    return Parts()


def is_a(value: Any, module: str, name: str) -> bool:
    """``isinstance`` without importing what may not be there."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def _check_random(model: Any) -> None:
    from flax import nnx

    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Dropout) and module.rate > 0 and not module.deterministic:
            raise VitportError(
                "The NNX model has dropout switched on, so outputs are random: call model.eval() first, "
                "or compare with masks=True."
            )
