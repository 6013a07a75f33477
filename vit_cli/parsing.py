"""Command-line errors as one sentence, like all other errors."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TypeVar

from vit_spec import VitportError

T = TypeVar("T")
_WIDE = "2000"
"""Columns wide enough not to wrap a sentence or a path."""


def parsed(parse: Callable[[], T], command: str) -> T:
    """The result of ``parse``, a call of tyro that only reads arguments and runs nothing.

    Args:
        command: whose ``--help`` a mistake names, where tyro names none.

    Raises:
        VitportError: for arguments that tyro or a dataclass rejects; SystemExit after printing help.
    """
    frame = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(frame), _columns():
            return parse()
    except SystemExit as stop:
        if not stop.code:
            return parse()  # help, as wide as the terminal
        error: BaseException | None = stop
        while error is not None:
            if isinstance(error, VitportError):
                raise error from None
            error = error.__context__
        raise VitportError(sentence(frame.getvalue(), command)) from None


def sentence(frame: str, command: str) -> str:
    """One sentence from the frame that tyro prints: title, error, perhaps a suggestion, where to find help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", frame)
    lines = [line.strip(" │|") for line in plain.splitlines()]
    parts: list[list[str]] = [[]]
    for line in lines[1:]:
        if not line.strip("─-╰╯+"):
            parts.append([])
        else:
            parts[-1].append(line)
    parts = [part for part in parts if part]
    told, *others = parts or [lines or [""]]
    if told[0].startswith("Missing from"):  # each with a line or more that explain it
        told = [told[0], ", ".join(line for line in told[1:] if line.startswith("--") or line.isupper())]
    text = " ".join(told).partition(" Got errors:")[0].rstrip(".: ")
    meant = [line.split()[0] for part in others if part[0].startswith("Perhaps you meant") for line in part
             if line.startswith("--")]  # fmt: skip
    if meant:
        text += f"; perhaps {' or '.join(dict.fromkeys(meant))} is meant"
    known = next((part for part in others if part[0].startswith("Available")), None)
    if known:
        text += f"; {' '.join(known).lower()}"
    helps = re.search(r"vitport [\w ]+ --help", plain)
    return f"{text}: `{helps[0] if helps else f'{command} --help'}` explains."


@contextmanager
def _columns() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDE
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
