"""Any model in JAX: an NNX, Linen or Equinox module, or a function with tags.

Nothing of the user's is changed: what :mod:`vit_parity.porting.jax_tagging` tags is a copy of an NNX model.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion.containers.file_checks import first_line
from vit_parity.frameworks import jax_dtype
from vit_parity.porting import equinox_model
from vit_parity.porting.equinox_model import equinox_module
from vit_parity.porting.jax_held import held, is_a, parts_of
from vit_parity.porting.jax_tagging import is_array, is_leaf, tagging
from vit_parity.porting.loops import Loop, stacked, unstacked
from vit_parity.porting.masks import of_a_pass
from vit_parity.porting.program import Evaluation, order_of, shaken
from vit_parity.porting.stages import ROOT, Key, Observed, Parts, is_float
from vit_parity.porting.tags import mark
from vit_parity.porting.traced import floats, program_of
from vit_spec import VitportError


class JaxModel:
    """A model with its inputs.

    Args:
        model: an NNX or Equinox module; a Linen module with its variables, as a pair or bound; or a function.
        args: positional arguments.
        kwargs: keyword arguments; arrays are traced, all else is left as it is.
        title: name of the run in reports.
    """

    def __init__(self, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], title: str) -> None:
        import jax

        self.title = title
        self._model = model
        self._weights, self._made, names = held(model)
        given, self._tree = jax.tree_util.tree_flatten_with_path((tuple(args), dict(kwargs)), is_leaf=is_leaf)
        self._given = [_as_array(leaf) for _, leaf in given]
        inputs = [f"inputs{jax.tree_util.keystr(path[1:])}" for path, leaf in given if is_array(_as_array(leaf))]
        self.names = [*names, *inputs]
        """Of the arrays that gradients may be asked for; ``None`` for the others."""
        self.is_function = not names
        """Whether its parameters, if it has any, are what it closes over."""
        self.kinds: dict[str, str] = {}
        self._called: dict[str, Any] = {}
        """Modules of Equinox that a function calls, by path."""
        self._kept: dict[tuple[bool, float], _Traced] = {}
        self.facts = {"framework": f"jax {jax.__version__}", "device": jax.devices()[0].device_kind}

    def run(
        self, *, wide: bool = False, shake: float = 0.0, forced: Mapping[Key, np.ndarray] | None = None
    ) -> Observed:
        """As :class:`vit_parity.porting.stages.Model` says."""
        import jax

        with jax_dtype("float64" if wide else "float32"):
            try:
                if (wide, shake) not in self._kept:
                    self._kept[wide, shake] = self._traced(wide, shake)
                traced = self._kept[wide, shake]
                put = _put(traced, forced) if forced else {}
                found = jax.device_get(traced.run(traced.arrays, put))
            except VitportError:
                raise
            except Exception as error:
                raise VitportError(f"{self.title} fails on these inputs ({first_line(error)}).") from error
        return Observed(unstacked(traced.order, found), _Kinds(self.kinds))

    def compute(self) -> None:
        """Run the model compiled, for those who listen."""
        import jax

        def run(leaves: list[Any]) -> tuple[()]:
            self.called(leaves)
            return ()

        with jax_dtype("float32"):
            try:
                jax.jit(run)(self.arrays(False, 0.0))
                jax.effects_barrier()
            except Exception as error:
                raise VitportError(f"{self.title} fails on these inputs ({first_line(error)}).") from error

    def _traced(self, wide: bool, shake: float) -> _Traced:
        """The program with its tags."""
        arrays = self.arrays(wide, shake)

        def call(*leaves: Any) -> Any:
            self.called(leaves)
            return ()

        with self.tagging():
            program, arrays = program_of(call, arrays)
        order = order_of(program.jaxpr, {})

        def run(given: Any, put: Any) -> Any:
            return Evaluation(wide, shake).run(program.jaxpr, program.consts, given, put, {})[1]

        return _Traced(arrays, order, run)

    @functools.cached_property
    def _modules(self) -> Mapping[str, Any]:
        """Path → module of NNX."""
        if not is_a(self._model, "flax.nnx", "Module"):
            return {}
        from flax import nnx

        return {".".join(map(str, at)) or ROOT: module for at, module in nnx.iter_modules(self._model)}

    def tagging(self) -> AbstractContextManager[None]:
        """While its program is traced, tag what its modules are given and what they return."""
        return tagging(self.kinds, self._model, self._called)

    def arrays(self, wide: bool, shake: float) -> list[Any]:
        """The model's arrays, then those among its inputs."""
        given = [leaf for leaf in self._given if isinstance(leaf, np.ndarray)]
        return [changed(leaf, wide, shake, -1 - at) for at, leaf in enumerate([*self._weights, *given])]

    def called(self, leaves: Sequence[Any]) -> Any:
        """The model's output for :meth:`arrays`, with its arrays marked."""
        import jax

        own, fresh = leaves[: len(self._weights)], iter(leaves[len(self._weights) :])
        given = [next(fresh) if isinstance(leaf, np.ndarray) else leaf for leaf in self._given]
        args, kwargs = jax.tree.unflatten(self._tree, given)
        with of_a_pass():
            output = self._made(list(own))(*args, **kwargs)
        if ROOT in self.kinds:  # the module marked it
            return output
        arrays, tree = jax.tree.flatten(output)
        return jax.tree.unflatten(tree, [mark(leaf, ROOT, f">{at}") for at, leaf in enumerate(arrays)])

    def parts(self, stage: str) -> Parts:
        """As :class:`vit_parity.porting.stages.Model` says."""
        path = stage.partition("#")[0].partition("[")[0]
        steps = [int(step) for step in _steps(stage)]
        whole = equinox_module(self._model)
        module = self._called.get(path) if whole is None else equinox_model.part_of(whole, path)
        found = parts_of(self._model, path, self._modules) if module is None else equinox_model.parts(module)
        arrays = {name: functools.reduce(lambda it, at: it[at], steps, array) for name, array in found.arrays.items()}
        return Parts(arrays, found.facts)


class _Kinds(dict[str, str]):
    """Classes by path, also for ``path#2`` and ``path[3]``."""

    def __missing__(self, name: str) -> str:
        path = name.partition("#")[0].partition("[")[0]
        if path == name or path not in self:
            raise KeyError(name)
        return self[path]

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default


@dataclass(frozen=True)
class _Traced:
    arrays: list[Any]
    order: list[Key | Loop]
    run: Callable[[Any, Any], dict[Key, Any]]
    """From the arrays, and from what replaces tags, to what is tagged."""


def _put(traced: _Traced, forced: Mapping[Key, np.ndarray]) -> dict[Key, tuple[np.ndarray, np.ndarray]]:
    """Of everything that is tagged, whether it is replaced, and by what."""
    import jax

    shapes = jax.eval_shape(traced.run, traced.arrays, {})
    own = unstacked(traced.order, {key: np.zeros(it.shape, it.dtype) for key, it in shapes.items()})
    return replacements(traced.order, own, forced)


def replacements(
    order: Sequence[Key | Loop], own: Mapping[Key, np.ndarray], forced: Mapping[Key, np.ndarray]
) -> dict[Key, tuple[np.ndarray, np.ndarray]]:
    """The same for what an order tags, where ``own`` has the shapes and dtypes of all of it."""
    flags = stacked(order, {key: np.array(key in forced) for key in own})
    values = stacked(
        order, {key: _as_fine(forced[key], array) if key in forced else array for key, array in own.items()}
    )
    return {key: (flags[key], values[key]) for key in values}


def _as_fine(array: np.ndarray, own: np.ndarray) -> np.ndarray:
    """An array in the dtype of what it replaces, unless that is a coarser one."""
    coarser = is_float(own) and is_float(array) and own.dtype.itemsize < array.dtype.itemsize
    return np.asarray(array) if coarser else np.asarray(array, own.dtype)


def _as_array(leaf: Any) -> Any:
    """numpy arrays for tensors of any framework; all else as it is."""
    if type(leaf).__module__.startswith("torch") and hasattr(leaf, "detach"):
        return leaf.detach().cpu().numpy()
    return np.asarray(leaf) if is_array(leaf) else leaf


def changed(leaf: Any, wide: bool, shake: float, number: int) -> Any:
    """An array as a run is given it: in float64, or moved by noise of this number."""
    import jax.numpy as jnp

    if not is_array(leaf):
        return leaf
    array = jnp.asarray(leaf, np.float64 if wide and floats(leaf) else None)
    return shaken(array, shake, number) if shake and floats(leaf) else array


def _steps(stage: str) -> list[str]:
    return re.findall(r"\[(\d+)\]", stage)
