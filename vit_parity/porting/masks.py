"""Random masks (dropout, drop path) recorded as one model draws them, and given to another in the same order."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vit_parity.porting.layouts import layouts
from vit_spec import VitportError

_MOVED = ((0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3), (0, 2, 1))
"""Orders of axes that libraries differ in: NCHW and NHWC, heads and tokens; tokens and channels."""


@dataclass
class Masks:
    """Random draws in their order: masks, which are true where values are kept, or uniform numbers."""

    drawn: list[np.ndarray] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """Write them as ``.npz``."""
        named = {f"{at:06d}": array for at, array in enumerate(self.drawn)}
        np.savez_compressed(Path(path), allow_pickle=False, **named)

    @staticmethod
    def load(path: str | Path) -> Masks:
        """Read what :meth:`save` wrote.

        Raises:
            VitportError: if the file cannot be read.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                return Masks([file[name] for name in sorted(file.files)])
        except Exception as error:  # a damaged archive raises nearly any type
            raise VitportError(f"{path} holds no recorded masks: write them with Masks.save.") from error

    def mask(self, at: int, shape: tuple[int, ...], keep: float | None = None) -> np.ndarray:
        """A draw as a mask of a shape.

        Args:
            at: which.
            shape: of the layer that draws it; other axes than those it was recorded in are found.
            keep: the layer's share of values that are kept, to make a mask of uniform numbers as ``floor(keep + u)``.

        Raises:
            VitportError: if there is none, or it cannot have the shape.
        """
        found = self._laid_out(at, shape)
        return found if found.dtype == bool else found + (1.0 if keep is None else keep) >= 1

    def uniform(self, at: int, shape: tuple[int, ...]) -> np.ndarray:
        """A draw as uniform numbers, so that ``floor(keep + u)`` is a mask that was recorded."""
        found = self._laid_out(at, shape)
        return np.where(found, 1 - 2.0**-24, 0.0) if found.dtype == bool else found

    def _laid_out(self, at: int, shape: tuple[int, ...]) -> np.ndarray:
        if at >= len(self.drawn):
            raise VitportError(
                f"One more random mask is drawn than the {len(self.drawn)} that were recorded, of shape {shape}: the "
                "other model has fewer layers that drop values, or they are switched off."
            )
        found = self.drawn[at]
        if found.shape == shape:
            return found
        moved = next((it for it in _MOVED if len(it) == found.ndim == len(shape)
                      and tuple(found.shape[axis] for axis in it) == shape), None)  # fmt: skip
        if moved is not None:
            return found.transpose(moved)
        layout = next(layouts(found.shape, shape), None)
        if layout is None:
            raise VitportError(
                f"Random mask {at} was recorded in the shape {found.shape}, and is drawn in {shape}: the two models "
                "drop values at different places, or one shares a mask along an axis (in Flax, broadcast_dims and "
                "broadcast_dropout)."
            )
        return layout.to_b(found)


class Source:
    """Gives recorded masks out in their order."""

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self.position = 0

    def next(self) -> int:
        """The number of the next draw."""
        self.position += 1
        return self.position - 1

    def check_all_drawn(self) -> None:
        """Raises a VitportError where masks are left."""
        count = len(self.masks.drawn)
        if self.position != count:
            raise VitportError(
                f"{self.position} of the {count} random masks that were recorded were drawn: the other model has fewer "
                "layers that drop values, or they are switched off. In a loop, record and replay step by step."
            )


_passes: ContextVar[Callable[[], AbstractContextManager[None]] | None] = ContextVar("passes", default=None)
"""Of a comparison: what each pass runs in."""


@contextmanager
def record_masks() -> Iterator[Masks]:
    """Record the random masks that are drawn in PyTorch and JAX until this ends.

    >>> with vitport.record_masks() as masks:
    ...     model(x)

    Dropout of ``torch.nn`` and ``torch.nn.functional``, also in attention; what is made of ``bernoulli`` and ``rand``,
    such as the drop path of timm, torchvision and transformers; in JAX what is drawn by ``jax.random.bernoulli`` and
    ``jax.random.uniform``, as in Flax, Haiku and Equinox, also in compiled functions.

    Yields:
        What was drawn, in the order of computation.
    """
    masks = Masks()
    with _recording(masks):
        yield masks


@contextmanager
def _recording(masks: Masks) -> Iterator[None]:
    with ExitStack() as stack:
        if "torch" in sys.modules:
            from vit_parity.porting.torch_masks import drawing

            stack.enter_context(drawing(masks, None))
        if "jax" in sys.modules:
            from vit_parity.porting.jax_masks import recording

            stack.enter_context(recording(masks))
        yield


@contextmanager
def replay_masks(masks: Masks) -> Iterator[None]:
    """Draw recorded masks, in their order, instead of random ones.

    >>> with vitport.replay_masks(masks):
    ...     port(x, rngs=nnx.Rngs(0))

    A function compiled by JAX is compiled with the masks in it, so each step of a loop needs its own.

    Args:
        masks: of :func:`record_masks`. Axes may be in another order, as in NHWC for NCHW.

    Raises:
        VitportError: if other masks are drawn than were recorded.
    """
    source = Source(masks)
    with ExitStack() as stack:
        if "torch" in sys.modules:
            from vit_parity.porting.torch_masks import drawing

            stack.enter_context(drawing(None, source))
        if "jax" in sys.modules:
            from vit_parity.porting.jax_masks import replaying

            stack.enter_context(replaying(source))
        yield
    source.check_all_drawn()


@contextmanager
def passes_record(masks: Masks) -> Iterator[None]:
    """The pass of a model that runs in here records its masks; it may be in training mode."""
    with _each_pass(functools.partial(_recording, masks)):
        yield


@contextmanager
def passes_replay(masks: Masks | None) -> Iterator[None]:
    """Every pass of a model draws these masks, from the first on; models may be in training mode."""
    with _each_pass(None if masks is None else functools.partial(replay_masks, masks)):
        yield


@contextmanager
def _each_pass(make: Callable[[], AbstractContextManager[None]] | None) -> Iterator[None]:
    before = _passes.set(make)
    try:
        yield
    finally:
        _passes.reset(before)


def masks_are_known() -> bool:
    """Whether a model may be in training mode, because its passes record or replay masks."""
    return _passes.get() is not None


def of_a_pass() -> AbstractContextManager[None]:
    """Where one pass runs, or is traced."""
    make = _passes.get()
    return nullcontext() if make is None else make()
