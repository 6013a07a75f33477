"""What is printed, in a terminal and in a pipe."""

from __future__ import annotations

import json
import math
import os
import pty
import subprocess
import sys

import pytest

from vit_cli.terminal import print_table, progress, short_number, spinner, three_digits, write_json


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.64e-6, "1.6e-6"), (0.5, "5.0e-1"), (12.0, "1.2e1"), (0.0, "0"), (math.nan, "nan"), (math.inf, "inf")],
)
def test_numbers_are_short(value, text):
    """Written out by hand."""
    assert short_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (45.64, "45.6"), (3810.2, "3,810"), (11_949.0, "11,900"), (2.5e6, "2,500,000")],
)
def test_rates_have_three_digits_and_no_exponent(value, text):
    """Written out by hand."""
    assert three_digits(value) == text


def test_json_has_no_numbers_that_json_lacks(capsys):
    """json.loads accepts NaN unless told to refuse it."""
    write_json({"a": [math.nan, 1.5], "b": (math.inf,), "c": None})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"a": [None, 1.5], "b": [None], "c": None}


def test_tables_in_a_pipe_are_never_squeezed(capsys):
    """A name of 300 characters stays whole, and square brackets are not markup."""
    print_table(("name", "<words"), [("x" * 300, "[red]")])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split() == ["x" * 300, "[red]"]


def test_progress_is_silent_where_nobody_watches(capsys):
    """stderr is not a terminal here: an error's line stays the only one."""
    with spinner("text"), progress("text") as told:
        told("name", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_progress_is_shown_in_a_terminal():
    """A pseudo-terminal as stderr of a process of its own."""
    ours, theirs = pty.openpty()
    code = (
        "from vit_cli.terminal import progress\n"
        "with progress('Writing') as told:\n  told('head.weight', 3, 4)\n  import time; time.sleep(0.3)"
    )
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", code], stderr=theirs, stdout=subprocess.DEVNULL, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    for word in ("Writing", "3/4", "head.weight"):
        assert word in shown
