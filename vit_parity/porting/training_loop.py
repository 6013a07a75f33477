"""``capturing(model)``: what a model computes inside somebody's own training loop, step by step."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.porting.jax_held import is_a
from vit_parity.porting.kept_steps import Keep, Names, Steps
from vit_parity.porting.stages import ROOT, Key, unique

if TYPE_CHECKING:
    from vit_parity.porting.listening import Listener, Mark


@contextmanager
def capturing(
    model: Any = None,
    *,
    names: Names | None = None,
    steps: Collection[int] | None = None,
    gradients: bool = False,
    keep: Keep = "arrays",
    to: str | Path | None = None,
) -> Iterator[Steps]:
    """Keep what a model computes inside code of your own, such as a training loop.

    >>> with vitport.capturing(model) as steps:
    ...     for batch in batches:
    ...         train_step(model, batch)
    >>> steps[3].activations["encoder.layers.0"]

    In JAX the loop stays as it is, compiled steps included: they are compiled once more when they run in here, and send
    what they compute; afterwards they run as they did before. Modules and tags are seen, also in scan, remat, vmap and
    grad.

    Args:
        model: whose calls are steps: a ``torch.nn.Module``; an NNX, Linen or Equinox module. Without one, or for a
            function, each run of a JAX program that has modules of Linen, Haiku or Equinox or a
            :func:`vit_parity.porting.tag` is a step.
        names: patterns such as ``layers.*.attn`` of the stages to keep; all by default.
        steps: numbers of the steps to keep, counted from 0; all by default.
        gradients: also keep what arrives at each stage's output on the way back, as ``gradient(NAME)``.
        keep: ``digest`` keeps some kilobytes of each array instead (:mod:`vit_parity.porting.digests`).
        to: a folder. Each step is written there as ``step_000003.npz`` instead of being kept in memory.

    Yields:
        A sequence that grows by a capture with each call of the model.
    """
    found = Steps(title_of(model), names, steps, keep, to)
    torch = sys.modules.get("torch")
    watching = watch_torch if torch is not None and isinstance(model, torch.nn.Module) else _jax
    with watching(model, found, gradients):
        try:
            yield found
        finally:
            found.settle()
    found.end()


@contextmanager
def watch_torch(model: Any, found: Steps, gradients: bool = False) -> Iterator[None]:
    """Hooks on every module."""
    import torch

    from vit_parity.frameworks import torch_array
    from vit_parity.porting.torch_model import Watched

    found.facts = {"framework": f"torch {torch.__version__}"}

    class Looped(Watched):
        def _called(self, path: str) -> str:
            if path == ROOT:
                self.clear()
                found.begin()
            return super()._called(path)

        def _passed(self, tensor: Any, key: Key) -> Any:
            name, slot = key
            if found.wants(name.partition("#")[0], slot):
                found.put(key, torch_array(tensor).copy())
                if gradients and slot[0] == ">" and tensor.requires_grad:
                    found.expect(key)
                    tensor.register_hook(lambda it: found.put((name, f"g{slot}"), torch_array(it).copy()))
            return tensor

    with Looped(model, {}).watching():
        yield


@contextmanager
def _jax(model: Any, found: Steps, gradients: bool) -> Iterator[None]:
    """Marks in all that is traced."""
    import jax

    from vit_parity.porting.jax_tagging import paths_of, tagging

    found.facts = {"framework": f"jax {jax.__version__}", "device": jax.devices()[0].device_kind}
    with ExitStack() as stack:
        if is_a(model, "flax.nnx", "Module"):
            stack.enter_context(paths_of(model))
        stack.enter_context(listen(found, tagging({}, model, {}), gradients=gradients))
        yield


@contextmanager
def listen(found: Steps, tagging: AbstractContextManager[None], *, gradients: bool = False) -> Iterator[None]:
    """Put into steps what programs send that are traced in here, with their modules tagged."""
    import jax

    from vit_parity.porting.listening import Listener

    found.settle = jax.effects_barrier
    places = _Places(found)
    places.listener = Listener(places.arrived, found.wants, gradients=gradients)
    with tagging, places.listener.listening():
        yield


class _Places:
    """Names what arrives, and sees where a step begins: at the model's call, or at the first mark of a program."""

    listener: Listener

    def __init__(self, found: Steps) -> None:
        self._found = found
        self._first: Mark | None = None
        self._counts: dict[tuple[int, str], int] = {}
        self._seen: dict[Key, int] = {}
        self._keys: dict[tuple[int, str, int], Key] = {}

    def arrived(self, mark: Mark, array: np.ndarray) -> None:
        """An array from a program."""
        place, total = (mark.number, mark.slot), math.prod(mark.lengths)
        first = self._first
        called = mark.name == ROOT and mark.slot == "<0" and (first is None or first.name == ROOT)
        again = first is not None and (first.number, first.slot) == place and self._counts[place] % total == 0
        if first is None or called or again:
            self._first, self._counts, self._seen, self._keys = mark, {}, {}, {}
            self._found.begin()
        count = self._counts.get(place, 0)
        self._counts[place] = count + 1
        call, step = divmod(count, total)
        whole = (*place, call)
        if whole not in self._keys:
            self._keys[whole] = unique(mark.name, mark.slot, self._seen)
        name, slot = self._keys[whole]
        at = np.unravel_index(total - 1 - step if slot[0] == "g" else step, mark.lengths) if mark.lengths else ()
        key = (name + "".join(f"[{it}]" for it in at), slot)
        self._found.put(key, array)
        if mark.number in self.listener.reached and slot[0] == ">":
            self._found.expect(key)


def title_of(model: Any) -> str:
    """The name of a model's class."""
    return "loop" if model is None else getattr(model, "__name__", type(model).__name__)
