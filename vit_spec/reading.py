"""Values from outside, converted to the form in which configs keep them."""

from __future__ import annotations

import json
from typing import Any

from vit_spec.errors import VitportError


def height_and_width(size: Any, name: str) -> tuple[int, int]:
    """One int for a square, or two, in pixels.

    Raises:
        VitportError: for anything else, naming the field.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise VitportError(f"{name}={size!r} is not a size: give one int or (height, width).")
    return sides


def fields_in_json(text: str, what: str) -> dict[str, Any]:
    """The fields of a JSON object.

    Raises:
        VitportError: if the text is not a JSON object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VitportError(f"The text is not valid JSON for a {what} ({error}): write it with to_json.") from error
    if not isinstance(values, dict):
        raise VitportError(f"The JSON of a {what} must be an object with its fields, not {type(values).__name__}.")
    return values
