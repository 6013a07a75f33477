"""What is passed on to ``conversion.load`` is what it takes."""

from __future__ import annotations

import inspect

import conversion
from conversion.opening import Opening


def test_reading_has_the_arguments_of_load_under_their_names_and_types() -> None:
    own = {"path", "if_unstated", "need_head"}
    taken = {it.name: it.annotation for it in inspect.signature(conversion.load).parameters.values()}
    passed = {name: hint.__forward_arg__ for name, hint in conversion.Reading.__annotations__.items()}
    assert passed == {name: hint for name, hint in taken.items() if name not in own}


def test_what_a_second_reading_needs_is_taken_from_it() -> None:
    found = Opening.of({"weights_key": "ema", "model": "vit_tiny_patch16_224"})
    assert found == Opening(weights_key="ema")
