"""The order of images in a run, and its batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from conversion.store import StoreError
from vit_jax.cores import cores
from vit_jax.training.data.feed import Batch, Feed
from vit_jax.training.data.images import evaluation_pixels, training_pixels
from vit_jax.training.data.record import Record, Source, at_once
from vit_jax.training.data.sources.holdout import are_several, labels_of
from vit_jax.training.recipe.data import Augmentation, Corrupt, Data
from vit_spec import Preprocessing, VitportError

__all__ = ["Batch", "Feed", "Stream", "evaluation_batches"]

_ORDER, _AUGMENTATION = 0, 1
"""Second words of the seeds: of permutations, and of augmentations."""
_WHOLE_BATCH = 8
"""If none of so many images or more can be read, single damaged files are not the cause."""


class Stream(Feed):
    """This process's rows of the training batches, endless over epochs.

    Position g = epoch * n + k of the stream holds the k-th image of the epoch's permutation; row r of global batch t is
    position t * batch + r. With ``options.repeats`` of m it is the (k // m)-th image, and augmentation depends on g, so
    m consecutive positions hold m augmentations of one image. A batch therefore depends only on ``seed``, ``batch`` and
    the number of images, not on the number of processes and workers, and ``first=t`` resumes after t steps.
    """

    def __init__(
        self,
        source: Source,
        options: Data,
        preprocessing: Preprocessing,
        *,
        batch: int,
        rows: Sequence[int] | np.ndarray,
        seed: int,
        first: int = 0,
    ) -> None:
        """
        Args:
            batch: size of the global batch.
            rows: those of the global batch that this process makes.
            first: number of the first global batch.

        Raises:
            VitportError: for rows outside the batch, a negative seed, or other channels than 1 and 3.
        """
        if seed < 0:
            raise VitportError(f"seed must be 0 or more; got {seed}.")
        own = _checked(rows, batch, preprocessing)
        if options.balanced and are_several(source):
            raise VitportError("data.balanced is for one label an image, and these have several: leave it out.")
        make = _TrainingBatch(
            source, preprocessing, options.augment, options.corrupt, options.repeats, batch, own, seed,
            labels_of(source) if options.balanced else None,
        )  # fmt: skip
        super().__init__(make, workers=options.workers, first=first)


def evaluation_batches(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch: int,
    rows: Sequence[int] | np.ndarray | None = None,
    workers: int = 0,
    corrupt: Corrupt = "skip",
) -> Feed:
    """Every image once, in the order of the source, with the model's preprocessing.

    All batches have the same shape; the last is padded with zeros of weight 0.

    Args:
        rows: those of the global batch that this process makes; ``None``: all.

    Raises:
        VitportError: for rows outside the batch, or other channels than 1 and 3.
    """
    own = _checked(range(batch) if rows is None else rows, batch, preprocessing)
    make = _EvaluationBatch(source, preprocessing, corrupt, batch, own)
    return Feed(make, workers=workers, end=-(-len(source) // batch))


def check_channels(preprocessing: Preprocessing) -> None:
    """
    Raises:
        VitportError: if the model takes other images than grey or RGB.
    """
    if len(preprocessing.mean) not in (1, 3):
        raise VitportError(
            f"The model takes images of {len(preprocessing.mean)} channels, and the data are grey or RGB: choose a "
            "model with 1 or 3 channels."
        )


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """(size,): the order of images in an epoch."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(size)


def balanced(seed: int, epoch: int, labels: np.ndarray) -> np.ndarray:
    """(size,): images in an epoch that has as many of each class, give or take one.

    A class's images come in permutations, one after the other, so that each comes as often as any other of its class,
    give or take one.
    """
    rng = np.random.default_rng((seed, _ORDER, epoch))
    classes = rng.permutation(np.unique(labels))  # the first of them get what is left over
    taken = []
    for at, label in enumerate(classes):
        rows = np.flatnonzero(labels == label)
        count = len(labels) // len(classes) + (at < len(labels) % len(classes))
        rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
        taken.append(np.concatenate([*rounds, rows[:0]])[:count])
    return rng.permutation(np.concatenate(taken))


@dataclass
class _TrainingBatch:
    source: Source
    preprocessing: Preprocessing
    augment: Augmentation
    corrupt: Corrupt
    repeats: int
    batch: int
    rows: np.ndarray
    seed: int
    labels: np.ndarray | None
    """Of all images, where classes are balanced."""
    orders: dict[int, np.ndarray] = field(default_factory=dict)
    """Permutations of the last two epochs; threads that write at the same time write the same."""

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "orders": {}}

    def __call__(self, number: int, /) -> tuple[Batch, tuple[tuple[str, str], ...]]:
        places = number * self.batch + self.rows
        epochs, at = np.divmod(places, len(self.source))
        orders = {epoch: self._order(epoch) for epoch in np.unique(epochs).tolist()}
        images = [int(orders[epoch][k // self.repeats]) for epoch, k in zip(epochs.tolist(), at.tolist(), strict=True)]
        return _filled(self.source, images, places, self._pixels, self.preprocessing, self.corrupt)

    def _order(self, epoch: int) -> np.ndarray:
        order = self.orders.get(epoch)
        if order is None:
            seed, size = self.seed, len(self.source)
            order = permutation(seed, epoch, size) if self.labels is None else balanced(seed, epoch, self.labels)
            self.orders = {e: o for e, o in self.orders.items() if e >= epoch - 1} | {epoch: order}
        return order

    def _pixels(self, record: Record, place: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, _AUGMENTATION, place))
        return training_pixels(record, self.preprocessing, self.augment, rng)


@dataclass(frozen=True)
class _EvaluationBatch:
    source: Source
    preprocessing: Preprocessing
    corrupt: Corrupt
    batch: int
    rows: np.ndarray

    def __call__(self, number: int, /) -> tuple[Batch, tuple[tuple[str, str], ...]]:
        places = number * self.batch + self.rows
        images = [place if place < len(self.source) else None for place in places.tolist()]
        return _filled(self.source, images, places, self._pixels, self.preprocessing, self.corrupt)

    def _pixels(self, record: Record, place: int) -> np.ndarray:
        return evaluation_pixels(record, self.preprocessing)


def _filled(
    source: Source,
    images: Sequence[int | None],
    places: np.ndarray,
    pixels: Callable[[Record, int], np.ndarray],
    preprocessing: Preprocessing,
    corrupt: Corrupt,
) -> tuple[Batch, tuple[tuple[str, str], ...]]:
    """The batch of the source's ``images``, ``None`` for padding, and the images that could not be read."""
    size = len(images)
    batch = {
        "image": np.zeros((size, *preprocessing.size, len(preprocessing.mean)), np.uint8),
        "label": np.zeros((size, len(source.classes)), np.uint8) if are_several(source) else np.zeros(size, np.int32),
        "index": (places % 2**32).astype(np.uint32),
        "weight": np.zeros(size, np.float32),
    }
    skipped = []
    wanted = [(row, at, place) for row, (at, place) in enumerate(zip(images, places.tolist(), strict=True))
              if at is not None]  # fmt: skip
    for row, got in _all(wanted, at_once(source), partial(_read, source), partial(_decoded, pixels=pixels)):
        if isinstance(got, _Unreadable):
            if corrupt == "fail":
                raise VitportError(f"{got.reason.rstrip('.')}; data.corrupt=skip skips such images.")
            skipped.append((got.name, got.reason))
        else:
            batch["image"][row], batch["label"][row] = got
            batch["weight"][row] = 1
    if len(skipped) == size >= _WHOLE_BATCH:
        raise VitportError(
            f"None of {size} consecutive images of {source.name} can be read; the first: {skipped[0][1]}"
        )
    return batch, tuple(skipped)


def _all(
    wanted: Sequence[tuple[int, int, int]],
    at_once: int,
    read: Callable[[int], Record | _Unreadable],
    decode: Callable[[Record | _Unreadable, int], _Made],
) -> Iterator[tuple[int, _Made]]:
    """What ``decode`` makes of each image, in order, after its row.

    Many are read ahead of those that are decoded, which a few threads do, always the same: a decoded image is ten times
    as large, and what a thread has freed stays with it.
    """
    if at_once == 1 or len(wanted) == 1:
        yield from ((row, decode(read(at), place)) for row, at, place in wanted)
        return
    reading: deque[tuple[int, int, Future[Record | _Unreadable]]] = deque()
    decoding: deque[tuple[int, Future[_Made]]] = deque()

    def pass_on() -> None:
        row, place, asked = reading.popleft()
        decoding.append((row, _decoders().submit(decode, asked.result(), place)))

    with ThreadPoolExecutor(min(at_once, max(len(wanted), 1))) as pool:
        for row, at, place in wanted:
            reading.append((row, place, pool.submit(read, at)))
            if len(reading) == at_once:
                pass_on()
            if len(decoding) == at_once:
                done, made = decoding.popleft()
                yield done, made.result()
        while reading:
            pass_on()
    yield from ((row, made.result()) for row, made in decoding)


@cache
def _decoders() -> ThreadPoolExecutor:
    """Threads of this process that decode what comes from a store."""
    return ThreadPoolExecutor(max(4, cores()), "decoding")


class _Unreadable(NamedTuple):
    name: str
    reason: str


_Made = tuple[np.ndarray, int | np.ndarray] | _Unreadable
"""Pixels and label."""


def _read(source: Source, at: int) -> Record | _Unreadable:
    name = f"{source.name}[{at}]"
    try:
        return source[at]
    except StoreError:
        raise
    except VitportError as error:
        return _Unreadable(name, str(error))
    except OSError as error:
        name = error.filename or name
        return _Unreadable(name, f"{name} cannot be read ({error.strerror or error}).")
    except Exception as error:  # hostile files make the libraries that read them raise anything
        return _Unreadable(
            name, f"{name} cannot be read ({' '.join(str(error).split())[:200] or type(error).__name__})."
        )


def _decoded(record: Record | _Unreadable, place: int, pixels: Callable[[Record, int], np.ndarray]) -> _Made:
    if isinstance(record, _Unreadable):
        return record
    try:
        return pixels(record, place), record.label
    except VitportError as error:
        return _Unreadable(record.name, str(error))


def _checked(rows: Sequence[int] | np.ndarray, batch: int, preprocessing: Preprocessing) -> np.ndarray:
    rows = np.asarray(rows, np.int64)
    if batch < 1 or rows.ndim != 1 or not rows.size or rows.min() < 0 or rows.max() >= batch:
        raise VitportError(f"rows must lie in a batch of {batch}, from 0 to {batch - 1}; got {rows.tolist()}.")
    check_channels(preprocessing)
    return rows
