"""Preprocessing is validated as configs are, and survives JSON."""

from __future__ import annotations

import pytest

from vit_spec import Preprocessing, VitportError


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": (1, 2, 3)}, "no picture size"),
        ({"size": 0}, "no picture size"),
        ({"mean": (0.5,)}, "must name the same channels"),
        ({"std": (0.5, 0.0, 0.5)}, "must be positive"),
        ({"crop_fraction": 0.0}, "must lie above 0"),
        ({"crop_fraction": 1.5}, "at most at 1"),
        ({"interpolation": "area"}, "interpolation='area' is unknown"),
        ({"resize": "stretch"}, "resize='stretch' is unknown"),
        ({"sise": 3}, "no field sise"),
    ],
)
def test_a_contradiction_is_one_sentence_that_names_it(changes, sentence) -> None:
    with pytest.raises(VitportError, match=sentence):
        Preprocessing().replace(**changes)


def test_json_there_and_back_is_the_identity() -> None:
    settings = Preprocessing(size=(96, 128), mean=(0.1,), std=(0.2,), interpolation="lanczos", resize="squash")
    assert Preprocessing.from_json(settings.to_json()) == settings
