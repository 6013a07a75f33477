"""What a file says of itself, held against what it is: sizes that it claims, and JSON that it carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vit_spec import VitportError

_MOST_INFLATED, _ALWAYS_ALLOWED = 100, 1 << 28
"""Weights shrink to a half at best, and models of zeros are small: beyond a hundredfold and 256 MiB lies no model."""


def check_size(path: Path, claimed: int, real: int) -> None:
    """Refuse a file that would take beyond all measure more memory than it has bytes, before any is taken.

    Args:
        claimed: bytes that its tensors would have.
        real: bytes of the file or folder.
    """
    if claimed > _MOST_INFLATED * real + _ALWAYS_ALLOWED:
        raise VitportError(
            f"{path} has {real} bytes and would unpack to {claimed}: weights do not shrink so far, so it is not read."
        )


def json_object(path: Path, text: str | bytes) -> dict[str, Any]:
    """One JSON object that stands in a file, or the sentence that says it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VitportError(f"{path} cannot be read as JSON ({first_line(error)}): fetch it again.") from error
    if not isinstance(value, dict):
        raise VitportError(f"{path} holds {type(value).__name__} instead of a JSON object: fetch it again.")
    return value


def unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The pairs of a map as a dict, for parsers that would keep the last of two equal keys in silence.

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
    """The first line of what an error says, or its kind where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
