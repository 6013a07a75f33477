"""Long work that cannot be asked to stop, such as a compiler's."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

from vit_cli.terminal import say_error

T = TypeVar("T")
_OFTEN = 60.0
"""Seconds between two lines, where stderr is no terminal."""


def waited(work: Callable[[], T]) -> T:
    """The result of ``work``. Another thread does it, so that this one, which takes signals, can end at once."""
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True).start()
        with _clock() as tick:
            while not found.done():
                tick()
                wait([found], 0.5)
        return found.result()
    except KeyboardInterrupt:
        say_error("stopped.")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(130)  # the other thread would be torn down while it computes


@contextmanager
def _clock() -> Iterator[Callable[[], None]]:
    """A function to call often, which shows how long it has taken: all the time on a terminal, else each minute."""
    begin = time.monotonic()
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("") as status:
            yield lambda: status.update(f"{time.monotonic() - begin:.0f} s")
        return
    shown = 0

    def tick() -> None:
        nonlocal shown
        if time.monotonic() - begin > (shown + 1) * _OFTEN:
            shown += 1
            say_error(f"still compiling after {shown * _OFTEN:.0f} s")

    yield tick
