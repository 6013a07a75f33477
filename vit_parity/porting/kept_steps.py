"""The captures of a training loop's steps: in memory, in a folder, or as digests."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from vit_parity.capture import Capture
from vit_parity.capture_file import load_capture, save_capture
from vit_parity.porting.digests import Digest, DigestedStage, digested, load_digest, save_digest
from vit_parity.porting.stages import ROOT, Key, is_float, named_output, output_key
from vit_spec import VitportError

Names = str | Iterable[str]
Keep = Literal["arrays", "digest"]
Kept = Capture | Digest
GRADIENT = "gradient("
"""How the name of what arrives at a stage begins."""


def gradient_at(name: str) -> str:
    """The name of what arrives at the output of a stage."""
    stage, slot = output_key(name)
    return named_output((f"{GRADIENT}{stage})", slot))


class Steps(Sequence[Any]):
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


def of_own_model(path: Path) -> bool:
    """Whether a file is a capture of a model of somebody's own, whose stages have the names of that."""
    try:
        found = load_capture(path) if path.is_file() else None
    except VitportError:
        return False
    return found is not None and ROOT in found.activations
