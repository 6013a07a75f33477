"""Batches by number, made ahead of time in threads or processes by grain."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

import numpy as np

from vit_jax.cores import cores
from vit_jax.training.background import Background
from vit_jax.training.data.library import load_grain
from vit_jax.training.data.workers import LOOK, Workers, prepare_thread, unpacked
from vit_spec import VitportError

Batch = dict[str, np.ndarray]
"""``image`` uint8 (B, H, W, C); ``label`` int32 (B,), or uint8 (B, K) where an image may have several of K
classes; ``index`` uint32 (B,), the image's position in the whole run, modulo 2^32; ``weight`` float32 (B,), 0 for
images that could not be read and for padding at the end."""
ENDLESS = 2**48
"""More batches than any run makes."""
_MOST_THREADS = 4
"""Each thread holds a batch. Decoding releases the GIL, so a few threads help; more work belongs to processes."""
_AHEAD = 2
"""Batches that a worker prefetches."""
_SHARED = 768
"""Arrays of so many bytes or more come from a worker in shared memory, smaller ones through a pipe. A batch has four
besides its images: what goes through the pipe stays below the 4 kB that are written as a whole or not at all. Else a
worker that is killed leaves half of them, and whoever reads waits for the rest, even at the end of the program."""
_PATIENCE = 5.0
"""Seconds that workers get to end by themselves."""
_DIED = re.compile(r"terminated unexpectedly with exit code (-?\d+)")


class BatchMaker(Protocol):
    """A picklable pure function from a batch's number to the batch."""

    def __call__(self, number: int, /) -> tuple[Batch, tuple[tuple[str, str], ...]]:
        """The batch, and the names of the images that could not be read, with the reasons."""
        ...


class _Threads:
    """Makes batches in grain's threads, which go on after its end without it: what they read may be gone then."""

    def __init__(self, make: BatchMaker) -> None:
        self._make, self._busy, self._ended = make, 0, False
        self._turn = threading.Condition()

    def __call__(self, number: int, /) -> tuple[Batch, tuple[tuple[str, str], ...]]:
        with self._turn:
            if self._ended:
                raise VitportError(f"Batch {number} was asked for after the end of its feed: make another.")
            self._busy += 1
        try:
            return self._make(number)
        finally:
            with self._turn:
                self._busy -= 1
                self._turn.notify_all()

    def end(self) -> None:
        """Lets no batch begin, and waits for those that are made; one may read from a lost disk for ever."""
        with self._turn:
            self._ended = True
            self._turn.wait_for(lambda: not self._busy, _PATIENCE)


class Feed(Iterator[Batch]):
    """Iterates over the batches from number ``first``, made by ``workers`` processes, or by threads if that is 0.

    Use it as a context manager, or close it, to end the processes. Workers import the program's main module again, as
    multiprocessing does, so a script must start its work under ``if __name__ == "__main__"``.
    """

    def __init__(self, make: BatchMaker, *, workers: int, first: int = 0, end: int = ENDLESS) -> None:
        grain = load_grain()
        self._corrupt: dict[str, str] = {}
        threads = 0 if workers else min(_MOST_THREADS, cores())
        processes = min(workers, max(end - first, 1))
        self._workers = Workers(make, processes) if workers else None
        self._threads = _Threads(make)
        batches = grain.MapDataset.range(first, end).map(self._workers.make if self._workers else self._threads)
        made = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        made = grain.experimental.WithOptionsIterDataset(made, grain.experimental.DatasetOptions(min_shm_size=_SHARED))
        if self._workers is not None:
            options = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=_AHEAD)
            made = made.mp_prefetch(options, self._workers.begin)
        self._batches: Any = iter(made)
        self._taken = 0

    @property
    def corrupt(self) -> Mapping[str, str]:
        """Images so far that could not be read, with the reasons, in order."""
        return MappingProxyType(self._corrupt)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """
        Raises:
            VitportError: if an image cannot be read and ``data.corrupt`` is ``fail``; if a worker died or is stopped.
        """
        try:
            batch, corrupt = next(self._batches) if self._workers is None else self._next_of(self._workers)
        except VitportError as error:
            self.close()
            raise VitportError(str(error)) from error
        self._corrupt.update(corrupt)
        # A copy, so that shared memory is released now and not when the caller drops the batch, which may be too late.
        return {name: np.array(array) for name, array in batch.items()} if self._workers is not None else batch

    def _next_of(self, workers: Workers) -> Any:
        """Takes it in a thread, so that a worker that is stopped is noticed. The first time starts them."""

        def take() -> Any:
            if not self._taken:
                prepare_thread()
            return next(self._batches)

        waiting = Background(take)
        workers.look()
        while not waiting.wait(LOOK):
            workers.look()
        if isinstance(waiting.error, RuntimeError) and (died := _DIED.search(str(waiting.error))):
            raise workers.died(int(died[1])) from waiting.error
        if waiting.error is not None:
            raise waiting.error
        self._taken += 1
        if self._taken == workers.count:  # they take turns
            workers.have_begun()
        return unpacked(*waiting.result)

    def close(self) -> None:
        """Ends the workers, threads with the image that each reads. Closing twice is harmless."""
        if self._workers is None:
            self._batches.close()
            self._threads.end()
            return
        self._workers.have_begun()  # or never will
        self._workers.kill(stopped=True)
        closing = Background(self._batches.close)
        if not closing.wait(0.2 if self._workers.some_died else _PATIENCE):
            self._workers.kill()  # it may read from a lost disk for ever
            closing.wait(LOOK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
