"""``capturing(model)``: what a model computes inside somebody's own training loop, step by step."""

from __future__ import annotations

import fnmatch
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from vit_parity.capture import Capture
from vit_parity.porting.jax_held import is_a
from vit_parity.porting.stages import ROOT, Key, Observed, Values, named_output, output_key, unique

if TYPE_CHECKING:
    from vit_parity.porting.listening import Listener, Mark

Names = str | Iterable[str]
GRADIENT = "gradient("
"""How the name of what arrives at a stage begins."""


def gradient_at(name: str) -> str:
    """The name of what arrives at the output of a stage."""
    stage, slot = output_key(name)
    return named_output((f"{GRADIENT}{stage})", slot))


@contextmanager
def capturing(
    model: Any = None,
    *,
    names: Names | None = None,
    steps: Collection[int] | None = None,
    gradients: bool = False,
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
        to: a folder. Each step is written there as ``step_000003.npz`` instead of being kept in memory.

    Yields:
        A sequence that grows by a capture with each call of the model.
    """
    found = Steps(_title(model), names, steps, to)
    torch = sys.modules.get("torch")
    watching = _torch if torch is not None and isinstance(model, torch.nn.Module) else _jax
    with watching(model, found, gradients):
        try:
            yield found
        finally:
            found.settle()
    found.end()


class Steps(Sequence[Capture]):
    """The captures of a loop's steps, in their order.

    Args:
        title: of the model.
        names: patterns of the stages to keep.
        steps: numbers of the steps to keep.
        to: the folder where each is written.
    """

    def __init__(
        self, title: str, names: Names | None = None, steps: Collection[int] | None = None, to: str | Path | None = None
    ) -> None:
        self.numbers: list[int] = []
        """Of the steps that are kept, counted from 0."""
        self.facts: dict[str, str] = {}
        self.settle: Callable[[], Any] = lambda: None
        """Waits for what is still being computed."""
        self._title, self._steps = title, steps
        self._names = None if names is None else (names,) if isinstance(names, str) else tuple(names)
        self._folder = None if to is None else Path(to)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._kept: list[Capture | Path] = []
        self._number = -1
        self._values: Values | None = None
        self._given: np.ndarray | None = None
        self._expected: list[Key] = []

    def wants(self, name: str, slot: str) -> bool:
        """Whether a slot of a stage is kept: what is returned, and the model's own inputs."""
        if name == ROOT and slot[0] == "<":
            return True
        return slot[0] != "<" and (self._names is None or any(fnmatch.fnmatch(name, it) for it in self._names))

    def begin(self) -> None:
        """The next step."""
        self.end()
        self._number += 1
        if self._steps is None or self._number in self._steps:
            self._values, self._given, self._expected = {}, None, []

    def put(self, key: Key, array: np.ndarray) -> None:
        """An array of the step."""
        if self._values is None:
            return
        name, slot = key
        if slot[0] == "<":
            self._given = array if self._given is None else self._given
        elif slot[0] == "g":
            self._values[f"{GRADIENT}{name})", slot[1:]] = array
        else:
            self._values[key] = array

    def expect(self, key: Key) -> None:
        """A gradient should arrive there; if others do and this one does not, it is 0."""
        self._expected.append(key)

    def end(self) -> None:
        """The step is over."""
        made, self._values = self._capture(), None
        if made is None:
            return
        self.numbers.append(self._number)
        if self._folder is None:
            self._kept.append(made)
            return
        from vit_parity.capture_file import save_capture

        path = self._folder / f"step_{self._number:06d}.npz"
        save_capture(made, path)
        self._kept.append(path)

    def _capture(self) -> Capture | None:
        values = self._values or {}
        if any(name.startswith(GRADIENT) for name, _ in values):
            values = values | {(f"{GRADIENT}{name})", slot): np.zeros_like(values[name, slot])
                               for name, slot in reversed(self._expected)
                               if (name, slot) in values and (f"{GRADIENT}{name})", slot) not in values}  # fmt: skip
        outputs = Observed(values).outputs
        if not outputs:
            return None
        dtype = next((it.dtype.name for name, it in reversed(outputs.items()) if not name.startswith(GRADIENT)), "")
        images = np.zeros(0, np.float32) if self._given is None else self._given
        facts = self.facts | {"step": str(self._number), "dtype": dtype or "float32"}
        return Capture(f"{self._title}, step {self._number}", outputs, images, facts)

    def _all(self) -> list[Capture | Path]:
        self.settle()
        last = self._capture()
        return [*self._kept, *([] if last is None else [last])]

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, at: int) -> Capture: ...
    @overload
    def __getitem__(self, at: slice) -> list[Capture]: ...
    def __getitem__(self, at: int | slice) -> Capture | list[Capture]:
        found = self._all()[at]
        return [_read(it) for it in found] if isinstance(found, list) else _read(found)


def _read(kept: Capture | Path) -> Capture:
    from vit_parity.capture_file import load_capture

    return load_capture(kept) if isinstance(kept, Path) else kept


@contextmanager
def _torch(model: Any, found: Steps, gradients: bool) -> Iterator[None]:
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
    from vit_parity.porting.listening import Listener

    found.facts = {"framework": f"jax {jax.__version__}", "device": jax.devices()[0].device_kind}
    found.settle = jax.effects_barrier
    with ExitStack() as stack:
        if is_a(model, "flax.nnx", "Module"):
            stack.enter_context(paths_of(model))
        stack.enter_context(tagging({}, model, {}))
        places = _Places(found)
        places.listener = Listener(places.arrived, found.wants, gradients=gradients)
        stack.enter_context(places.listener.listening())
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


def _title(model: Any) -> str:
    return "loop" if model is None else getattr(model, "__name__", type(model).__name__)
