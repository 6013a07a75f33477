"""Text from outside as one line that shows what it is: names, notes, labels and paths can hold anything."""

from __future__ import annotations

import re

_LONGEST_LINE, _LONGEST_WORD = 4000, 300
"""Characters. What is longer is shortened in its middle, so that beginning and remedy stay."""
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")


def printable(text: object, longest: int = _LONGEST_LINE) -> str:
    """One line without anything that a terminal or a browser obeys or hides, shortened where it is very long.

    Args:
        text: anything; its ``str``.
        longest: characters of the result; a longer text loses its middle, as a word of more than 300 does.
    """
    line = escaped(_shortened(str(text), longest))
    return _shortened(_LONG_WORD.sub(lambda word: _shortened(word[0], _LONGEST_WORD), line), longest)


def escaped(text: str) -> str:
    """The text with escapes, as in a Python string, for what is not visible (``\\n``, ``\\x1b``, ``\\u202e``).

    These are line breaks, control characters of both blocks (ESC among them), marks that turn the direction of text,
    invisible and private characters, spaces other than the plain one, and bytes of a file name that are not text.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def escaped_values(value: object) -> object:
    """JSON values with every string in them, keys too, :func:`escaped`."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {escaped(key) if isinstance(key, str) else key: escaped_values(it) for key, it in value.items()}
    return [escaped_values(it) for it in value] if isinstance(value, (list, tuple)) else value


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end - 1]}…{text[-end:]}"
