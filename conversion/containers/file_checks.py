"""Checks of what a file claims about itself: its unpacked size, its JSON, its keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vit_spec import VitportError

_MOST_INFLATED, _ALWAYS_ALLOWED = 100, 1 << 28
"""Compression at best halves weights, and models of zeros are small: no model unpacks a hundredfold beyond 256 MiB."""


def check_size(path: Path, claimed: int, real: int) -> None:
    """Refuse a file whose tensors would need far more memory than the file has bytes, before allocating any.

    Args:
        path: for the message.
        claimed: bytes that its tensors would take.
        real: bytes of the file or folder.

    Raises:
        VitportError: if ``claimed`` is out of proportion to ``real``.
    """
    if claimed > _MOST_INFLATED * real + _ALWAYS_ALLOWED:
        raise VitportError(
            f"{path} has {real} bytes and would unpack to {claimed}, more than weights can: check its origin."
        )


def json_object(path: Path, text: str | bytes) -> dict[str, Any]:
    """The JSON object in a file's text.

    Raises:
        VitportError: if the text is not JSON, or not an object.
    """
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
    """The first line of an error's message, or the name of its class if the message is empty."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
