"""Which stage of B answers to which of A, as lines of a file that people read and write.

    patch_embed                = stem.conv
    blocks.*.norm1             = layers.*.ln_1
    blocks.*.attn.q            = layers.*.attn.qkv[..., 0:192]
    encoder.layers.*.fc1       = scanned.fc1[*]
    head                       = classifier.transpose(1, 0)

Each ``*`` of B stands for what that of A stands for. Axes are found by themselves (NCHW against NHWC, heads split or
joined); what is written behind a name, ``[…]``, ``.transpose(…)``, ``.reshape(…)``, says it instead. Lines that begin
with ``#`` are comments.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conversion.containers.file_checks import first_line
from vit_spec import VitportError

_CHANGE = r"\.transpose\([\d,\s]*\)|\.reshape\([-\d,\s]*\)|\[[^\]]*[,:.][^\]]*\]"
_CHANGES = re.compile(rf"(?P<name>.*?)(?P<changes>(?:{_CHANGE})*)$")


@dataclass(frozen=True)
class Pair:
    """One stage of A and its counterpart."""

    a: str
    b: str
    of_a: str = ""
    """What is done to A's array first, such as ``[..., 0:192]``."""
    of_b: str = ""

    @property
    def name(self) -> str:
        """A's side as it is written."""
        return self.a + self.of_a

    def __str__(self) -> str:
        return f"{self.name} = {self.b}{self.of_b}"


def both_names(a: str, b: str) -> str:
    """A stage or parameter as sentences name it: by A's name, and by B's where that is another."""
    return a if a == b else f"{a} (B: {b})"


def read_pairs(source: str | Path | Iterable[Pair | str], a: Collection[str], b: Collection[str]) -> tuple[Pair, ...]:
    """The pairs of a file, of its lines, or as they are.

    Args:
        source: path of the file; or lines; or pairs.
        a: the stages of A.
        b: those of B.

    Raises:
        VitportError: if the file cannot be read, a line is not a pair, or a name fits no stage.
    """
    if isinstance(source, (str, Path)):
        try:
            source = Path(source).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise VitportError(f"The pairs in {source} cannot be read: {first_line(error)}.") from error
    found: dict[str, Pair] = {}
    for number, line in enumerate(source, 1):
        if isinstance(line, Pair):
            pairs = [line]
        elif not line.strip() or line.lstrip().startswith("#"):
            continue
        else:
            pairs = _expanded(line, number, a, b)
        found |= {pair.name: pair for pair in pairs}
    for pair in found.values():
        for letter, name, there in (("A", pair.a, a), ("B", pair.b, b)):
            if name not in there:
                raise VitportError(f"The pair {pair} names {name}, which {letter} does not have{_hint(name, there)}")
    order = {name: at for at, name in enumerate(a)}
    return tuple(sorted(found.values(), key=lambda pair: order[pair.a]))


def changed(array: np.ndarray, changes: str) -> np.ndarray:
    """An array after what a pair says.

    Raises:
        VitportError: if that does not fit its shape.
    """
    for change in re.findall(_CHANGE, changes):
        try:
            if change.startswith("["):
                array = array[_index(change)]
            else:
                name, _, rest = change[1:].partition("(")
                numbers = [int(number) for number in re.findall(r"-?\d+", rest)]
                array = array.transpose(numbers) if name == "transpose" else array.reshape(numbers)
        except (ValueError, IndexError, TypeError, SyntaxError) as error:
            raise VitportError(
                f"{change} does not fit an array of shape {array.shape} ({first_line(error)})."
            ) from error
    return array


def _index(text: str) -> tuple[Any, ...]:
    """``[..., 0:3]`` as what numpy takes."""
    parts = []
    for part in text[1:-1].split(","):
        part = part.strip()
        if part == "...":
            parts.append(Ellipsis)
        elif ":" in part:
            parts.append(slice(*(int(number) if number.strip() else None for number in part.split(":"))))
        else:
            parts.append(ast.literal_eval(part))
    return tuple(parts)


def _expanded(line: str, number: int, a: Collection[str], b: Collection[str]) -> list[Pair]:
    """A line with patterns as one pair for each stage of A that it fits."""
    left, equals, right = line.partition("=")
    if not (equals and left.strip() and right.strip()):
        raise VitportError(
            f"Line {number} of the pairs, {line.strip()!r}, is not a pair: write `stage of A = stage of B`."
        )
    (name_a, of_a), (name_b, of_b) = (_parted(side.strip()) for side in (left, right))
    if name_a.count("*") != name_b.count("*"):
        raise VitportError(f"Line {number} of the pairs, {line.strip()!r}, has more * on one side than on the other.")
    pattern = re.compile("([^.]*?)".join(re.escape(part) for part in name_a.split("*")))
    matches = [found for found in map(pattern.fullmatch, a) if found]
    if not matches:
        raise VitportError(f"Line {number} of the pairs: no stage of A is called {name_a}{_hint(name_a, a)}")
    pairs = []
    for found in matches:
        words = iter(found.groups())
        pairs.append(Pair(found.group(), re.sub(r"\*", lambda _, words=words: next(words), name_b), of_a, of_b))
    fitting = [pair for pair in pairs if pair.b in b]
    if not fitting:
        raise VitportError(f"Line {number} of the pairs: no stage of B is called {pairs[0].b}{_hint(pairs[0].b, b)}")
    return fitting


def _parted(text: str) -> tuple[str, str]:
    found = _CHANGES.fullmatch(text)
    assert found is not None  # it fits every text
    return found["name"], found["changes"]


def _hint(name: str, there: Collection[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, there, 1, 0.5)
    return f": did you mean {near[0]}?" if near else f". It has {', '.join(list(there)[:6])}, …"
