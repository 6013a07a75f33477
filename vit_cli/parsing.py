"""Command-line errors as one sentence, like all other errors."""

from __future__ import annotations

import difflib
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

TRAINERS = {
    "--lr": "--recipe.schedule.peak", "--learning-rate": "--recipe.schedule.peak",
    "--warmup": "--recipe.schedule.warmup",
    "--batch-size": "--batch", "--num-epochs": "--epochs", "--max-steps": "--steps",
    "--output": "--workdir", "--output-dir": "--workdir", "--out": "--workdir", "--save-dir": "--workdir",
    "--data-dir": "--data", "--dataset": "--data", "--data-path": "--data", "--train": "--data",
    "--val": "--validation",
    "--pretrained": "--weights", "--checkpoint": "--weights", "--finetune": "--weights",
    "--weight-decay": "--recipe.optimizer.weight-decay", "--opt": "--recipe.optimizer.name",
    "--optimizer": "--recipe.optimizer.name", "--layer-decay": "--recipe.optimizer.layer-decay",
    "--clip-grad": "--recipe.optimizer.clip-norm", "--smoothing": "--recipe.loss.smoothing",
    "--mixup": "--recipe.loss.mixup", "--cutmix": "--recipe.loss.cutmix", "--drop-path": "--model.drop-path-rate",
    "--workers": "--data.workers", "--num-workers": "--data.workers", "--dtype": "--precision", "--amp": "--precision",
    "--fp16": "--precision", "--bf16": "--precision", "--img-size": "--model.image-size",
    "--image-size": "--model.image-size", "--input-size": "--model.image-size", "--patience": "--keep.patience",
    "--grad-accum-steps": "--recipe.accumulation", "--accum-iter": "--recipe.accumulation", "--resume": "--workdir",
}  # fmt: skip
"""Options of the trainers of timm, DeiT, MAE and transformers → those of ``vitport train``."""


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
    meant = _usual_names(text, command) or [
        name for part in others if part[0].startswith("Perhaps you meant") for name in _suggested(part, command)
    ]
    if meant:
        text += f"; perhaps {' or '.join(dict.fromkeys(meant))} is meant"
    known = next((part for part in others if part[0].startswith("Available")), None)
    if known:
        word = text.partition("Unrecognized options: ")[2].split(", ")[0]
        near = difflib.get_close_matches(word, " ".join(known).partition(": ")[2].split(", "), n=1)
        text += f"; perhaps {near[0]} is meant" if near else ""
        text += f"; {' '.join(known).lower()}"
    helps = None if len(command.split()) > 1 else re.search(r"vitport [\w ]+ --help", plain)
    return f"{text}: `{helps[0] if helps else f'{command} --help'}` explains."


def _suggested(part: list[str], command: str) -> list[str]:
    """The options in a suggestion of tyro's that are this command's: each is followed by those that have it."""
    found: list[str] = []
    names: list[str] = []
    for line in part[1:]:
        if line.startswith("--"):
            names.append(line.split()[0])
        elif match := re.fullmatch(r"in (vitport.*) --help", line):
            found += names if match[1] == command else []
            names = []
    return found + names


def _usual_names(text: str, command: str) -> list[str]:
    """What options of other programs are called here."""
    unknown = [name.replace("_", "-") for name in text.partition("Unrecognized options: ")[2].split(", ")]
    return [TRAINERS[name] for name in unknown if name in TRAINERS] if command == "vitport train" else []


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
