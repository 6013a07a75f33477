"""The command as a process of its own, which ends as it should whenever a signal comes.

It imports what ``vitport`` needs only after it has taken the signals.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType

_STATUS = {"SIGINT": 130, "SIGTERM": 75}
"""As :mod:`vit_jax.training.run.stopping` has it for a run that is under way."""
_PATIENCE = 5.0
"""Seconds that threads get to end, once the command has ended."""


def entry() -> int:
    """Runs the command line; it may restart this process first: see :mod:`vit_cli.huge_pages`."""
    trains = sys.argv[1:2] == ["train"]
    if trains:
        for name in _STATUS:
            number = getattr(signal, name)
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and shells want it in the background
                signal.signal(number, _end_training)
        _block(False)
    try:
        from vit_cli.huge_pages import ask_for_huge_pages

        if trains:
            _block(True)  # they wait for the new start
        ask_for_huge_pages(sys.argv[1:])
        if trains:
            _block(False)
        from vit_cli.main import main
        from vit_cli.platforms import look_for_no_tpu
        from vit_cli.terminal import escape_output

        escape_output()
        look_for_no_tpu()
        status = main()
    except KeyboardInterrupt:
        sys.stderr.write("vitport: stopped.\n")
        status = 130
    _end_threads(status)
    return status


def _end_training(number: int, frame: FrameType | None) -> None:
    """Before the first step, and after the last, there is nothing to save.

    An exception could be lost in a library that is being imported, or be taken for the fault of a file that is being
    read; a thread could keep the process from ending. Files are written aside and renamed: none is left half-written.
    """
    name = signal.Signals(number).name
    if os.isatty(2):
        os.write(2, b"\r\x1b[K\x1b[?25h")  # a clock may be there, which hides the cursor
    resumes = not {"--dry-run", "--dry_run"} & set(sys.argv)
    os.write(2, f"vitport: stopped by {name}{': run again to resume' if resumes else ''}.\n".encode())
    release = getattr(sys.modules.get("vit_jax.training.run.lock"), "release_all", None)  # it may just be imported
    if release is not None:
        release()
    os._exit(_STATUS[name])


def _block(blocked: bool) -> None:
    """Lets signals wait, even for a program that takes this one's place."""
    if hasattr(signal, "pthread_sigmask"):
        numbers = [getattr(signal, name) for name in _STATUS]
        signal.pthread_sigmask(signal.SIG_BLOCK if blocked else signal.SIG_UNBLOCK, numbers)


def _end_threads(status: int) -> None:
    """Ends the process if a thread does not end by itself: one that writes to a lost disk may never do so."""
    end = time.monotonic() + _PATIENCE
    while any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        if time.monotonic() > end:
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(entry())
