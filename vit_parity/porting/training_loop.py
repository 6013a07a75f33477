"""``capturing(model)``: what a model computes inside somebody's own training loop, step by step."""

from __future__ import annotations

import fnmatch
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from vit_parity.capture import Capture
from vit_parity.capture_file import load_capture, save_capture
from vit_parity.porting.digests import Digest, DigestedStage, digested, load_digest, save_digest
from vit_parity.porting.jax_held import is_a
from vit_parity.porting.stages import ROOT, Key, is_float, named_output, output_key, unique

if TYPE_CHECKING:
    from vit_parity.porting.listening import Listener, Mark

Names = str | Iterable[str]
Keep = Literal["arrays", "digest"]
Kept = Capture | Digest
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


class Steps(Sequence[Kept]):
    """The captures of a loop's steps, in their order.

    Args:
        title: of the model.
        names: patterns of the stages to keep.
        steps: numbers of the steps to keep.
        keep: arrays or digests.
        to: the folder where each is written.
    """

    def __init__(
        self, title: str, names: Names | None = None, steps: Collection[int] | None = None, keep: Keep = "arrays",
        to: str | Path | None = None
    ) -> None:  # fmt: skip
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
        self._keep: Callable[[np.ndarray], Any] = digested if keep == "digest" else np.asarray
        self._kept: list[Kept | Path] = []
        self._number = -1
        self._values: dict[Key, Any] | None = None
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
        elif is_float(array) and array.ndim and array.size:
            to = (f"{GRADIENT}{name})", slot[1:]) if slot[0] == "g" else key
            self._values[to] = self._keep(array)

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
        path = self._folder / f"step_{self._number:06d}.npz"
        save(made, path)
        self._kept.append(path)

    def _capture(self) -> Kept | None:
        values = self._values or {}
        if any(name.startswith(GRADIENT) for name, _ in values):
            missing = [key for key in reversed(self._expected)
                       if key in values and (f"{GRADIENT}{key[0]})", key[1]) not in values]  # fmt: skip
            values = values | {(f"{GRADIENT}{name})", slot): _zeros(values[name, slot]) for name, slot in missing}
        outputs = {named_output(key): it for key, it in values.items()}
        if not outputs:
            return None
        dtype = next((str(it.dtype) for name, it in reversed(outputs.items()) if not name.startswith(GRADIENT)), "")
        facts = self.facts | {"step": str(self._number), "dtype": dtype or "float32"}
        title = f"{self._title}, step {self._number}"
        if self._keep is digested:
            return Digest(title, outputs, facts)
        images = np.zeros(0, np.float32) if self._given is None else self._given
        return Capture(title, outputs, images, facts)

    def _all(self) -> list[Kept | Path]:
        self.settle()
        last = self._capture()
        return [*self._kept, *([] if last is None else [last])]

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        found = self._all()[at]
        return [read(it) for it in found] if isinstance(found, list) else read(found)


def _zeros(kept: Any) -> Any:
    return digested(np.zeros(kept.shape, kept.dtype)) if isinstance(kept, DigestedStage) else np.zeros_like(kept)


def save(kept: Kept, path: Path) -> None:
    """Write a capture or a digest."""
    if isinstance(kept, Digest):
        save_digest(kept, path)
    else:
        save_capture(kept, path)


def read(kept: Kept | str | Path) -> Kept:
    """A capture or a digest, or what a file holds.

    Raises:
        VitportError: if the file holds neither.
    """
    if isinstance(kept, (Capture, Digest)):
        return kept
    return load_digest(Path(kept)) or load_capture(Path(kept))


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
