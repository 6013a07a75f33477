"""The processes that make batches, as grain starts them: what they are to do, and whether they live."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from weakref import WeakSet, finalize

import numpy as np

from vit_spec import VitportError

_STOP = (signal.SIGINT, signal.SIGTERM)
LOOK = 0.5
"""Seconds between two looks at workers that are waited for."""
_STOPPED_LOOKS = 20
"""Consecutive checks that find a worker stopped before the run gives up on it. Not seconds: the
clock goes on while Ctrl-Z stops a terminal's programs, all of them."""
_PREFIX = "grain-process-prefetch"
_SIGNALS = {number.value: number.name for number in signal.Signals}
_claimed: WeakSet[BaseProcess] = WeakSet()


class Workers:
    """The workers of one feed.

    A worker gets what it is to do through a pipe, and what does not fit into one is waited for until somebody reads it.
    A worker that dies young never does, so the run would hang. Therefore everything goes through a file.

    Args:
        make: what they are to do; the pickled :attr:`make` stands for it.
        count: of processes.

    Raises:
        VitportError: if there is no room for the file.
    """

    def __init__(self, make: Callable[..., Any], count: int) -> None:
        import cloudpickle  # as grain does, so that what is defined in a notebook may be in it

        self.count = count
        self._found: list[BaseProcess] = []
        self._stopped_looks = 0
        content = cloudpickle.dumps(make)
        try:
            number, name = tempfile.mkstemp(prefix="vitport-workers-")
            self.have_begun: Callable[..., object] = finalize(self, _remove, Path(name))
            """Removes the file, which the workers have read then. Doing it twice is harmless."""
            with os.fdopen(number, "wb") as file:
                file.write(content)
        except OSError as error:
            raise VitportError(
                f"The data workers need {len(content)} bytes of a temporary file, which cannot be written "
                f"({error.strerror or error}): make room, set TMPDIR to another folder, or give data.workers=0."
            ) from error
        self.make: Callable[..., Any] = _Filed(Path(name))
        self.begin: Callable[[int, int], None] = partial(_begin, Path(name))
        """Runs first in each worker."""

    def look(self) -> None:
        """Finds the workers that have begun, and whether all are well.

        Raises:
            VitportError: if one of them died, or is stopped.
        """
        for process in multiprocessing.active_children():
            if process.name.startswith(_PREFIX) and process not in _claimed:
                _claimed.add(process)
                self._found.append(process)
        for process in self._found:
            if process.exitcode:
                raise self.died(process.exitcode)
        stopped = [process.pid for process in self._found if _is_stopped(process)]
        self._stopped_looks = self._stopped_looks + 1 if stopped else 0
        if self._stopped_looks > _STOPPED_LOOKS:
            raise VitportError(
                f"The data worker with process number {stopped[0]} is stopped, and the next batch is its: let it go on "
                f"(kill -CONT {stopped[0]}), or run again."
            )

    @property
    def some_died(self) -> bool:
        """Whether one ended by something else than its work's end."""
        return any(process.exitcode for process in self._found)

    def died(self, code: int) -> VitportError:
        """Says that one of them did, and with which exit code."""
        how = _SIGNALS.get(-code, f"status {code}")
        return VitportError(
            f"One of the {self.count} data workers died ({how}): if memory or /dev/shm is full, use smaller batches or "
            'fewer workers; if no worker ever starts, put the script under if __name__ == "__main__".'
        )

    def kill(self, *, stopped: bool = False) -> None:
        """Kills those that live, or only those that are stopped, which would end in no other way."""
        for process in self._found:
            if process.exitcode is None and (not stopped or _is_stopped(process)):
                process.kill()


def prepare_thread() -> None:
    """To be called in the thread that starts workers, which inherit from it what its signals do.

    They begin with the signals blocked that they will ignore; other threads stay open to them. And what is left of a
    worker that was killed is removed without a warning: nobody can do anything about it.
    """
    if hasattr(signal, "pthread_sigmask"):
        quiet = "ignore:resource_tracker:UserWarning"
        sys.warnoptions.append(quiet)
        try:
            resource_tracker.ensure_running()  # else it began with the first worker, and unblocked them
        finally:
            sys.warnoptions.remove(quiet)
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


class _Filed:
    """The function in a file, read where it is called first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._make: Callable[..., Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_make": None}

    def __call__(self, number: int, /) -> tuple[dict[str, np.ndarray], np.ndarray]:
        make = self._make
        if make is None:
            with self._path.open("rb") as file:
                make = self._make = pickle.load(file)  # noqa: S301, for this program wrote it
        batch, corrupt = make(number)
        return batch, np.frombuffer(json.dumps(corrupt).encode(), np.uint8)


def unpacked(batch: dict[str, np.ndarray], corrupt: np.ndarray) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """What a worker made: the sentences of images that cannot be read come as an array, as they may be long."""
    return batch, [(name, reason) for name, reason in json.loads(corrupt.tobytes())]


def _begin(path: Path, number: int, count: int) -> None:
    """A worker must end with its parent and not before.

    Ctrl-C in a terminal and the time limit of a job signal every process; a run that then saves still needs workers.
    """
    del number, count
    for stop in _STOP:
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(path,), daemon=True).start()


def _end_with_parent(path: Path) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _remove(path)  # a parent that was killed did not
        os._exit(1)


def _is_stopped(process: BaseProcess) -> bool:
    """Whether SIGSTOP or a debugger holds it; Linux tells."""
    try:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False
