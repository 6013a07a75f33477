"""Terminal output: results on stdout, progress on stderr and only if it is a terminal."""

from __future__ import annotations

import io
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vit_spec.printable import printable


def say(text: str) -> None:
    """One line on stdout, never wrapped; what it quotes of a file stays within it."""
    sys.stdout.write(f"{printable(text)}\n")


def say_error(text: str) -> None:
    """One line on stderr, after the command's name."""
    sys.stderr.write(f"vitport: {printable(text)}\n")


def three_digits(value: float) -> str:
    """Three significant digits, without an exponent: ``0.123``, ``45.6``, ``11,900``."""
    return f"{float(f'{value:.3g}'):,.9g}"


def skipped(name: str, reason: str) -> str:
    """That an image was left out, and why; most reasons begin with its name."""
    told = reason.removeprefix(f"{name} ")
    return f"skipped {name}: {reason}" if told == reason else f"skipped {name}, which {told}"


def write_json(value: Any) -> None:
    """One JSON document on stdout, as :func:`json_text` writes it."""
    sys.stdout.write(f"{json_text(value)}\n")


def json_text(value: Any) -> str:
    """A JSON document in ASCII; numbers that JSON lacks (NaN, infinity) become null."""
    return json.dumps(_finite(value), indent=2).replace("\x7f", "\\u007f")  # which JSON alone leaves as it is


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: the first column left-aligned, the others right-aligned. Cells are one line each.

    A column whose header begins with ``<`` is left-aligned too. If stdout is not a terminal, no column is squeezed.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for at, header in enumerate(headers):
        left = at == 0 or header.startswith("<")
        table.add_column(header.removeprefix("<"), justify="left" if left else "right")
    for row in rows:
        table.add_row(*map(printable, row))
    Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else 10_000).print(table)


def short_number(value: float) -> str:
    """Two significant digits and an exponent without padding, 1.6e-6; zero is 0."""
    if value == 0:
        return "0"
    digits, exponent, power = f"{value:.1e}".partition("e")
    return digits + (f"e{int(power)}" if exponent else "")  # nan and inf have no exponent


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """A spinner while something of unknown duration runs."""
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextmanager
def progress(text: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar, updated by calls of ``(name, done, total)``; it vanishes at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name, done, total: None
        return
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[name]}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=None, name="")
        yield lambda name, done, total: bar.update(task, completed=done, total=total, name=printable(name))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value


def escape_output() -> None:
    """Print what a terminal lacks by its escape, and a library's warning, which may quote a file, as one line."""
    warnings.formatwarning = _warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _warning(message: Warning | str, *place: object) -> str:
    del place
    return f"vitport: warning: {printable(message)}\n"
