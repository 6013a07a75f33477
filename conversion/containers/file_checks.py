"""Checks of what a file claims about itself: its unpacked size, its JSON, its keys."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from vit_spec import VitportError

_MOST_INFLATED, _ALWAYS_ALLOWED = 100, 1 << 28
"""Compression at best halves weights, and models of zeros are small: no model unpacks a hundredfold beyond 256 MiB."""

MOST_JSON = 1 << 24
"""Bytes of JSON that are parsed: the header of a model of 100,000 tensors. Parsed, they take thirty times as many."""
_NAMELESS = (LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, NotImplementedError)
"""Errors whose message alone says little, such as the key of a KeyError."""


def check_size(path: Path | str, claimed: int, real: int) -> None:
    """Refuse a file whose tensors would need far more memory than the file has bytes, before allocating any.

    Args:
        path: for the message; what it begins with.
        claimed: bytes that its tensors would take.
        real: bytes of the file or folder.

    Raises:
        VitportError: if ``claimed`` is out of proportion to ``real``.
    """
    if claimed > claimable(real):
        raise VitportError(
            f"{path} has {real} bytes and would unpack to {claimed}, more than weights can: check its origin."
        )


def claimable(real: int) -> int:
    """Bytes that a file of this size may unpack to."""
    return _MOST_INFLATED * real + _ALWAYS_ALLOWED


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, unless it is a pipe, which would be waited for, or a device, which may never end.

    Raises:
        VitportError: if it is not a regular file.
        OSError: if it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(handle, "rb") if stat.S_ISREG(os.fstat(handle).st_mode) else None
    if file is None:
        os.close(handle)
        raise VitportError(f"{path} is not a regular file: give or put a file in its place.")
    return file


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file.

    Args:
        most: bytes that are read.

    Raises:
        VitportError: if it is not a regular file, or larger.
        OSError: if it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise VitportError(
                f"{path} has {size:,} bytes, and at most {most:,} are read: remove it, or make it smaller."
            )
        return file.read(most)


def regular_files(folder: Path) -> tuple[Path, ...]:
    """All files below a folder, sorted.

    Raises:
        VitportError: for a link that leads out of it, and for a pipe, device or socket, whose reading may never end.
    """
    found: list[Path] = []
    home = folder.resolve()
    for place, folders, files in os.walk(folder):
        for entry in (Path(place) / name for name in (*folders, *files)):
            if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(home):
                raise VitportError(f"{entry} is a link and lies outside the folder: put the file itself there.")
            if not (entry.is_file() or entry.is_dir()):
                raise VitportError(f"{entry} is neither a file nor a folder: take it out of the checkpoint.")
            found += [entry] if entry.is_file() else []
    return tuple(sorted(found))


def check_inside(folder: Path, file: Path) -> None:
    """Refuse a file of a folder that is a link to somewhere else, but for the cache of the Hub, which is made of links.

    Raises:
        VitportError: naming the link.
    """
    home, real = folder.resolve(), Path(os.path.realpath(file))
    cache = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (real.is_relative_to(home) or real.is_relative_to(cache)):
        raise VitportError(f"{file} is a link and lies outside the folder, at {real}: put the file itself there.")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        VitportError: if the file cannot be read, or does not hold a JSON object.
    """
    try:
        return json_object(path, read_regular(path, MOST_JSON))
    except OSError as error:
        raise VitportError(f"{path} cannot be read ({error.strerror or error}): fetch it again.") from error


def json_object(path: Path, text: str | bytes) -> dict[str, Any]:
    """The JSON object in a file's text.

    Raises:
        VitportError: if the text is not JSON, not an object, or longer than any model's.
    """
    if not isinstance(text, (str, bytes)):
        raise VitportError(f"{path} holds {type(text).__name__} instead of JSON text: write it again.")
    if len(text) > MOST_JSON:
        raise VitportError(
            f"{path} has more than {MOST_JSON >> 20} MiB of JSON, more than any model: check its origin."
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VitportError(f"{path} cannot be read as JSON ({first_line(error)}): fetch it again.") from error
    if not isinstance(value, dict):
        raise VitportError(f"{path} holds {type(value).__name__} instead of a JSON object: fetch it again.")
    return value


def unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The pairs of a map as a dict, for parsers that would silently keep the last of two equal keys.

    Raises:
        ValueError: naming the keys that occur twice.
    """
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        raise ValueError(f"it holds {', '.join(twice)} more than once")
    return result


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with the name of its class where the message alone says little."""
    line = next(iter(str(error).splitlines()), "")
    kind = type(error).__name__
    return kind if not line else f"{kind}: {line}" if isinstance(error, _NAMELESS) else line
