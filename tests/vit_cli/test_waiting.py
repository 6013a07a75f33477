"""Long work in another thread. Oracle: what it does and raises by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from vit_cli import waiting
from vit_cli.waiting import waited
from vit_spec import VitportError

WAITS = """
import threading
from vit_cli.waiting import waited

def work():
    print("here", flush=True)
    threading.Event().wait()

waited(work)
"""


def test_the_work_gives_its_result_and_raises_its_errors() -> None:
    assert waited(lambda: 7) == 7
    for error in (VitportError("no"), TimeoutError("late")):

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)) as found:
            waited(fail)
        assert found.value is error


def test_where_nobody_sees_a_clock_a_line_says_that_it_goes_on(monkeypatch, capsys) -> None:
    monkeypatch.setattr(waiting, "_OFTEN", 0.2)
    waited(lambda: time.sleep(0.7))
    told = capsys.readouterr().err.splitlines()
    assert told
    assert all(line.startswith("vitport: still compiling after ") for line in told)


def test_ctrl_c_ends_the_command_whatever_the_work_does() -> None:
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=10)
    assert (process.returncode, told) == (130, "vitport: stopped.\n")
