"""Batches by number, made ahead of time in threads or processes by grain."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

import numpy as np

from vit_jax.cores import cores
from vit_jax.training.background import Background
from vit_jax.training.data.library import load_grain
from vit_spec import VitportError

Batch = dict[str, np.ndarray]
"""``image`` uint8 (B, H, W, C); ``label`` int32 (B,); ``index`` uint32 (B,), the image's position in the whole run,
modulo 2^32; ``weight`` float32 (B,), 0 for images that could not be read and for padding at the end."""
ENDLESS = 2**48
"""More batches than any run makes."""
_MOST_THREADS = 4
"""Each thread holds a batch. Decoding releases the GIL, so a few threads help; more work belongs to processes."""
_AHEAD = 2
"""Batches that a worker prefetches."""
_SHARED = 2**16
"""Arrays of so many bytes or more come from a worker in shared memory, smaller ones through a pipe."""
_DIED = "terminated unexpectedly"
_STOP = (signal.SIGINT, signal.SIGTERM)


class BatchMaker(Protocol):
    """A picklable pure function from a batch's number to the batch."""

    def __call__(self, number: int, /) -> tuple[Batch, tuple[tuple[str, str], ...]]:
        """The batch, and the names of the images that could not be read, with the reasons."""
        ...


class Feed(Iterator[Batch]):
    """Iterates over the batches from number ``first``, made by ``workers`` processes, or by threads if that is 0.

    Use it as a context manager, or close it, to end the processes. Workers import the program's main module again, as
    multiprocessing does, so a script must start its work under ``if __name__ == "__main__"``.
    """

    def __init__(self, make: BatchMaker, *, workers: int, first: int = 0, end: int = ENDLESS) -> None:
        grain = load_grain()
        self._corrupt: dict[str, str] = {}
        self._workers = workers
        threads = 0 if workers else min(_MOST_THREADS, cores())
        batches = grain.MapDataset.range(first, end).map(make)
        made = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        made = grain.experimental.WithOptionsIterDataset(made, grain.experimental.DatasetOptions(min_shm_size=_SHARED))
        if workers:
            processes = min(workers, max(end - first, 1))
            options = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=_AHEAD)
            made = made.mp_prefetch(options, _begin_worker)
        self._batches: Any = iter(made)
        self._begun = not workers

    @property
    def corrupt(self) -> Mapping[str, str]:
        """Images so far that could not be read, with the reasons, in order."""
        return MappingProxyType(self._corrupt)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """
        Raises:
            VitportError: if an image cannot be read and ``data.corrupt`` is ``fail``, or if a worker died.
        """
        try:
            batch, corrupt = next(self._batches) if self._begun else self._begin()
        except VitportError as error:
            self.close()
            raise VitportError(str(error)) from error
        except RuntimeError as error:
            self.close()
            if _DIED not in str(error):
                raise
            raise VitportError(
                f"One of the {self._workers} data workers died ({error}): if memory or /dev/shm is full, use smaller "
                'batches or fewer workers; if no worker ever starts, put the script under if __name__ == "__main__".'
            ) from error
        self._corrupt.update(corrupt)
        # A copy, so that shared memory is released now and not when the caller drops the batch, which may be too late.
        return {name: np.array(array) for name, array in batch.items()} if self._workers else batch

    def _begin(self) -> Any:
        """The first batch. Workers begin with these signals blocked, before they can ignore them.

        They inherit that from a thread of its own; the caller's stays open to signals while it waits.
        """

        def begin() -> Any:
            if hasattr(signal, "pthread_sigmask"):
                resource_tracker.ensure_running()  # begins with the first process, and then unblocks them
                signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
            return next(self._batches)

        first = Background(begin)
        first.wait(None)
        self._begun = True
        if first.error is not None:
            raise first.error
        return first.result

    def close(self) -> None:
        """Ends the workers. Closing twice is harmless."""
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _begin_worker(number: int, count: int) -> None:
    """Runs first in each worker, which must end with its parent and not before.

    Ctrl-C in a terminal and the time limit of a job signal every process; a run that then saves still needs workers.
    """
    for stop in _STOP:
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
