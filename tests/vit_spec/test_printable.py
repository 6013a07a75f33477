"""Text from outside as one line. Oracles: ``unicodedata``, and Python's own reading of the escapes."""

from __future__ import annotations

import ast
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_spec import VitportError
from vit_spec.printable import escaped, escaped_values, printable

HOSTILE = {
    "line": "a\nverified: every block agrees", "return": "a\rverified", "escape": "\x1b]0;owned\x07", "c1": "\x9b2J",
    "bidi": "a\u202egnp.exe", "isolate": "\u2066x\u2069", "separator": "a\u2028b\u2029c", "nel": "a\x85b",
    "tab": "a\tb",
    "surrogate": "caf\udce9", "zero width": "a\u200bb", "nbsp": "a\xa0b", "private": "\ue000", "null": "\x00",
    "delete": "\x7f", "feed": "a\x0cb\x0bc", "tag": "\U000e0041", "unassigned": "\u0378",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_terminal_obeys_is_left(text) -> None:
    line = printable(text)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert not any(unicodedata.category(char)[0] == "C" for char in line)
    line.encode("utf-8")
    assert ast.literal_eval(f'"{line}"') == text
    assert str(VitportError(text)) == line


@given(st.text(st.characters(exclude_characters='"\\'), max_size=200))
def test_any_text_becomes_one_line_that_says_the_same(text) -> None:
    assert escaped(text).isprintable()
    assert ast.literal_eval(f'"{escaped(text)}"') == text


def test_plain_text_of_any_language_stays() -> None:
    for text in ("blocks.0.attn.qkv.weight", "Eichhörnchen", "猫", "кошка", "a  b", "", "😀"):
        assert printable(text) == text


def test_what_is_very_long_keeps_its_beginning_and_its_end() -> None:
    word = "blocks." + "x" * 10**7 + ".weight"
    line = printable(f"surplus {word}: remove it.")
    assert len(line) < 400
    assert line.startswith("surplus blocks.xxx")
    assert line.endswith("xxx.weight: remove it.")
    assert len(printable("a b " * 10**6)) <= 4000
    assert len(printable("\x1b" * 10**6)) <= 4000


def test_every_string_of_json_is_escaped() -> None:
    value = {"a\n": ["b\x1b", {"c": "\u202e"}], "n": 1.5}
    assert json.dumps(escaped_values(value)) == r'{"a\\n": ["b\\x1b", {"c": "\\u202e"}], "n": 1.5}'
