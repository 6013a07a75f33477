"""Requests to stop a run: by a signal, by Ctrl-C, or because something went wrong in one of its processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

import jax
from jax.experimental import multihost_utils

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 75}
"""Exit status of a process that such a signal stopped. 75 is EX_TEMPFAIL: run again to resume."""
_AGAIN = 1.0
"""Seconds after which a further Ctrl-C means to end without saving; some launchers pass the first one on twice."""


class StoppedError(Exception):
    """A signal came where nothing has to be finished first."""


class StopRequests:
    """Says whether to stop; use it as a context manager, which takes the signals.

    The processes of one run stop at the same call, so all must make the same calls. JAX listens for SIGTERM there, and
    finds the call that no process has made yet; other requests are passed on as a SIGTERM to the own process.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The one that asked to stop."""
        self._stopping = False
        self._calls, self._since = 0, 0.0
        self._interruptible = False
        self._before: dict[signal.Signals, object] = {}

    def __call__(self) -> bool:
        """Whether to stop now. A collective: all processes must call it, and get the same answer."""
        if jax.process_count() > 1 and not self._stopping:
            self._calls += 1
            self._stopping = multihost_utils.reached_preemption_sync_point(self._calls)
            if self._stopping and self.signal is None:
                self.signal = signal.SIGTERM
        return self._stopping

    def request(self) -> None:
        """Asks all processes to stop."""
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._stopping = True

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """For what may be left at once, such as waiting for data that may never come.

        Raises:
            StoppedError: when a signal comes, or has come. Only in runs of one process: several have to agree.
        """
        self._interruptible = jax.process_count() == 1
        try:
            if self._interruptible and self._stopping:
                raise StoppedError
            yield
        finally:
            self._interruptible = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            several = jax.process_count() > 1  # JAX's own service listens for SIGTERM
            for number in (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and shells want it in the background
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def _take(self, number: int, frame: FrameType | None) -> None:
        first = self.signal is None
        if first:
            self.signal, self._since = signal.Signals(number), time.monotonic()
            self.request()
        elif number == signal.SIGINT and time.monotonic() - self._since > _AGAIN:
            raise KeyboardInterrupt
        if self._interruptible:
            raise StoppedError


@contextmanager
def noticing_signals() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGINT or SIGTERM came, besides what they do anyway.

    Libraries turn a KeyboardInterrupt into errors of their own, which look like those of a damaged file.
    """
    came: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], object]] = {}

    def take(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in STATUS}
        before |= {number: handler for number, handler in handlers.items() if callable(handler)}
        for number in before:
            signal.signal(number, take)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
