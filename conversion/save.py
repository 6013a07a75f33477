"""From a :class:`Checkpoint` to a path: written aside, flushed to disk, then renamed into place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from conversion.check import check_complete
from conversion.checkpoint import Checkpoint
from conversion.formats import FORMATS
from conversion.recognise import get_format
from vit_spec import VitportError

Progress = Callable[[str, int, int], None]
"""``progress(name, done, total)``, called as each tensor is written."""


def save(
    checkpoint: Checkpoint,
    path: str | Path,
    *,
    format: str,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint in a named format.

    The destination appears whole or not at all, and an old one is replaced only when the new one is complete.

    Raises:
        VitportError: for a format that is only read, a destination that exists, or a disk that does not take it.
    """
    target = get_format(format)
    path = Path(path)
    if target.writer is None:
        writable = ", ".join(name for name, entry in FORMATS.items() if entry.can_write)
        raise VitportError(f"{target.name} is read but not written: choose one of {writable}.")
    if path.exists() and not overwrite:
        raise VitportError(f"{path} exists already: choose another destination, or allow it to be overwritten.")
    check_complete(checkpoint.params.shapes, checkpoint.config)
    if complaints := target.cannot_hold(checkpoint.config):
        raise VitportError(
            f"{target.name} cannot hold {'; nor '.join(complaints)}: choose another format, such as timm."
        )
    table = target.names.write(checkpoint.params, checkpoint.config)
    written: list[str] = []

    def count(name: str) -> None:
        if progress is not None:
            progress(name, len(written), len(table))
        written.append(name)

    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        target.writer(aside, table, checkpoint, count)
        _flush(aside)
        _replace(aside, path)
    except OSError as error:
        raise VitportError(
            f"{path} cannot be written ({error.strerror or error}): choose a place with room and access."
        ) from error
    finally:
        _remove(aside)
    if progress is not None:
        progress("", len(table), len(table))


def _flush(path: Path) -> None:
    for file in [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]:
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())


def _replace(aside: Path, path: Path) -> None:
    """Rename into place; a folder in the way is moved off first, since a rename does not replace folders."""
    if not path.is_dir():
        aside.replace(path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old)
    aside.rename(path)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
