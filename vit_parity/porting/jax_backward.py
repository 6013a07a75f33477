"""The way back through a model in JAX: what arrives at each module and tag, and the gradients of the parameters.

The program that is evaluated is the whole gradient computation, as JAX differentiates it: a custom derivative is the
user's own. A mark leaves one on the way back (:func:`vit_parity.porting.tags.marking_gradients`), with the same number,
so the two belong together. Where one piece of a program is used several times, the way back meets its uses in reverse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conversion.containers.file_checks import first_line
from vit_parity.frameworks import jax_dtype
from vit_parity.porting.jax_model import JaxModel, changed, replacements
from vit_parity.porting.jax_tagging import is_array
from vit_parity.porting.layouts import apart
from vit_parity.porting.loops import Loop, chosen, keys_of, unstacked
from vit_parity.porting.program import Evaluation, order_of
from vit_parity.porting.stages import Backward, Key, Loss, Values, is_float, unique
from vit_parity.porting.tags import marking_gradients
from vit_parity.porting.traced import inlined, program_of
from vit_spec import VitportError


class JaxBackward:
    """A model with a loss, as of :class:`vit_parity.porting.stages.Differentiable`."""

    def __init__(self, model: JaxModel, loss: Loss) -> None:
        self._model, self._loss = model, loss
        named = {name: array for name, array in zip(model.names, model.arrays(False, 0.0), strict=True)
                 if name is not None and is_float(array)}  # fmt: skip
        self._own = {name: np.asarray(array) for name, array in named.items()}
        self.frozen: Sequence[str] = ()
        closed: list[Any] = []
        if model.is_function:
            try:
                closed = _trained(self._forward(model.arrays(False, 0.0))[0].consts)
            except Exception as error:
                raise self._failed(error) from error
        self.weights = self._own | {f"closed over [{at}]": np.asarray(array) for at, array in enumerate(closed)}
        self._kept: dict[tuple[bool, float], _Program] = {}

    def run(
        self,
        *,
        wide: bool = False,
        shake: float = 0.0,
        forced: Mapping[Key, np.ndarray] | None = None,
        arriving: Mapping[Key, np.ndarray] | None = None,
    ) -> Backward:
        """As :class:`vit_parity.porting.stages.Differentiable` says."""
        import jax

        with jax_dtype("float64" if wide else "float32"):
            try:
                if (wide, shake) not in self._kept:
                    self._kept[wide, shake] = self._traced(wide, shake)
                program = self._kept[wide, shake]
                put: dict[Key, Any] = {}
                if forced or arriving:
                    if not program.shapes:
                        self._evaluated(program, wide, shake, {})
                    put = program.put(forced or {}, arriving or {})
                found, gradients = jax.device_get(self._evaluated(program, wide, shake, put))
            except VitportError:
                raise
            except Exception as error:
                raise self._failed(error) from error
        values, arrived = program.read(found)
        silent = arrived.keys() - program.arriving.keys()
        return Backward(values, arrived, dict(zip(self.weights, gradients, strict=True)), silent)

    def _failed(self, error: Exception) -> VitportError:
        return VitportError(f"{self._model.title} cannot be differentiated on these inputs ({first_line(error)}).")

    def _evaluated(
        self, program: _Program, wide: bool, shake: float, put: Mapping[Key, Any]
    ) -> tuple[dict[Key, Any], list[Any]]:
        results, found, _ = Evaluation(wide, shake).run(program.jaxpr, program.consts, program.arrays, put, {})
        if not put and not program.shapes:
            program.learn(found)
        return found, results

    def _traced(self, wide: bool, shake: float) -> _Program:
        import jax
        from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

        arrays = self._model.arrays(wide, shake)
        count = len(arrays)
        places = [at for at, name in enumerate(self._model.names) if name in self._own]
        with self._model.tagging(), marking_gradients() as passed:
            forward, tree = self._forward(arrays) if self._model.is_function else (None, None)
            closed = [] if forward is None else _trained(forward.consts)

            def total(trained: list[Any], closed: list[Any], leaves: list[Any]) -> Any:
                for at, leaf in zip(places, trained, strict=True):
                    leaves[at] = leaf
                if forward is None:
                    return self._lost(self._model.called(leaves))
                fresh = iter(closed)
                consts = [next(fresh) if _is_trained(it) else it for it in forward.consts]
                return self._lost(jax.tree.unflatten(tree, jaxpr_as_fun(ClosedJaxpr(forward.jaxpr, consts))(*leaves)))

            def call(*given: Any) -> Any:
                leaves = list(given[:count])
                trained = [leaves[at] for at in places]
                return jax.grad(total, (0, 1))(trained, list(given[count:]), leaves)

            program, arrays = program_of(call, [*arrays, *closed])
        order = order_of(program.jaxpr, {})
        moved = [changed(array, wide, shake, -10_000 - at) for at, array in enumerate(closed)]
        return _Program([*arrays[:count], *moved], program.jaxpr, program.consts, order, frozenset(passed[1:]))

    def _forward(self, arrays: Sequence[Any]) -> tuple[Any, Any]:
        """The program of a function, and the tree of what it returns."""
        import jax

        with self._model.tagging():
            program, shapes = jax.make_jaxpr(lambda *leaves: self._model.called(leaves), return_shape=True)(*arrays)
            program = jax.make_jaxpr(lambda *leaves: inlined(program.jaxpr, program.consts, leaves))(*arrays)
        return program, jax.tree.structure(shapes)

    def _lost(self, output: Any) -> Any:
        import jax
        import jax.numpy as jnp

        if callable(self._loss):
            return self._loss(output)
        arrays = [leaf for leaf in jax.tree.leaves(output) if is_array(leaf)]
        given = {f">{at}": array for at, array in enumerate(arrays)}
        return sum((given[slot] * jnp.asarray(weights, given[slot].dtype)).sum()
                   for slot, weights in self._loss.items())  # fmt: skip


def _is_trained(const: Any) -> bool:
    return is_array(const) and is_float(const) and const.ndim > 0


def _trained(consts: Sequence[Any]) -> list[Any]:
    """What a function closes over and may be parameters."""
    return [it for it in consts if _is_trained(it)]


@dataclass
class _Program:
    """A gradient computation; what it tags is ``(name, "<0@7@1")``: the slot, the mark's number, which of its uses."""

    arrays: list[Any]
    jaxpr: Any
    consts: Sequence[Any]
    order: list[Key | Loop]
    reached: frozenset[int]
    """Marks that depend on what is differentiated by."""
    shapes: Values = field(default_factory=dict)
    """Of all slots, step by step, once it ran."""
    again: dict[Key, Key] = field(default_factory=dict)
    """What is computed a second time for the way back → the first."""
    arriving: Values = field(default_factory=dict)
    """Shapes of the gradients, step by step."""

    def __post_init__(self) -> None:
        seen: dict[Key, int] = {}
        self.forward: dict[Key, Key] = {}
        """Tag → its name and slot."""
        groups: dict[tuple[str, str], tuple[list[Key], list[Key], list[Key]]] = {}
        for key in keys_of(self.order):
            name, slot = key
            kind = {"g": 1, "r": 2}.get(slot[0], 0)
            whole = slot[bool(kind) :].rpartition("@")[0]
            groups.setdefault((name, whole), ([], [], []))[kind].append(key)
            if not kind:
                self.forward[key] = unique(name, whole.partition("@")[0], seen)
        self.back: dict[Key, Key] = {}
        """Tag on the way back → the name and slot that its gradient arrives at."""
        self.zero: dict[Key, Key] = {}
        """Tag at which none arrives."""
        self._twice: list[tuple[list[Key], list[Key]]] = []
        for (_, slot), (there, back, twice) in groups.items():
            if len(there) == len(back):
                self.back |= dict(zip(back, [self.forward[key] for key in reversed(there)], strict=True))
            elif not back and int(slot.rpartition("@")[2]) in self.reached:
                self.zero |= {key: self.forward[key] for key in there}
            if twice:
                self._twice.append((there, twice))

    def learn(self, found: Mapping[Key, Any]) -> None:
        """From a pass with nothing replaced: shapes, and which values are computed twice."""
        self.shapes, self.arriving = self._of(self.forward, found), self._of(self.back, found)
        for there, twice in self._twice:
            for key in twice:
                y = np.asarray(found[key])
                alike = [first for first in there if found[first].shape == y.shape]
                if alike:
                    self.again[key] = min(alike, key=lambda first: apart(np.asarray(found[first]), y))

    def read(self, found: Mapping[Key, Any]) -> tuple[Values, Values]:
        """The values of all slots, and the gradients that arrive there."""
        values, gradients, nothing = (self._of(names, found) for names in (self.forward, self.back, self.zero))
        return values, gradients | {key: np.zeros_like(array) for key, array in nothing.items() if is_float(array)}

    def put(self, forced: Mapping[Key, np.ndarray], arriving: Mapping[Key, np.ndarray]) -> dict[Key, Any]:
        """Of every tag, whether it is replaced, and by what."""
        put: dict[Key, Any] = {}
        for names, own, given in ((self.forward, self.shapes, forced), (self.back, self.arriving, arriving)):
            found = replacements(chosen(self.order, names.get), own, given)
            put |= {key: found[other] for key, other in names.items()}
        return put | {key: put[first] for key, first in self.again.items()}

    def _of(self, names: Mapping[Key, Key], found: Mapping[Key, Any]) -> Values:
        """Step by step, under other names."""
        kept = {other: np.asarray(found[key]) for key, other in names.items()}
        return unstacked(chosen(self.order, names.get), kept)
