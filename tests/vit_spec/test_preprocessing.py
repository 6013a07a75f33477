"""Preprocessing is validated as configs are, and survives JSON."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_spec import Preprocessing, VitportError
from vit_spec.preprocessing import Cropping, Interpolation, ResizeMode


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": (1, 2, 3)}, r"size=\(1, 2, 3\) is not a size"),
        ({"size": "ab"}, "size='ab' is not a size"),
        ({"size": (96.5, 96)}, "is not a size"),
        ({"mean": 0.5}, "mean=0.5 must be finite numbers"),
        ({"std": (0.5, 0.5, float("nan"))}, "std=.*nan.* must be finite numbers"),
        ({"crop_fraction": "1"}, r"crop_fraction='1' must be in \(0, 1\]"),
        ({"size": 0}, r"size=\(0, 0\) must have sides of at least 1 pixel"),
        ({"size": (8, -8)}, "must have sides of at least 1 pixel"),
        ({"mean": (0.5,)}, "must have the same length"),
        ({"mean": (), "std": ()}, r"mean=\(\) must be finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "must be positive"),
        ({"crop_fraction": 0.0}, r"crop_fraction=0.0 must be in \(0, 1\]"),
        ({"crop_fraction": 1.5}, r"crop_fraction=1.5 must be in \(0, 1\]"),
        ({"interpolation": "area"}, "interpolation='area' is unknown: choose one of bilinear, bicubic"),
        ({"resize": "stretch"}, "resize='stretch' is unknown: choose one of shortest, squash"),
        ({"sise": 3}, "Preprocessing has no field sise: its fields are size, mean"),
    ],
)
def test_a_contradiction_is_one_sentence_that_names_it(changes, sentence) -> None:
    with pytest.raises(VitportError, match=sentence) as caught:
        Preprocessing().replace(**changes)
    assert "\n" not in str(caught.value)


CHANNELS = st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1)), min_size=1, max_size=5)


@given(
    st.tuples(st.integers(1, 999), st.integers(1, 999)),
    CHANNELS,
    st.sampled_from(get_args(Interpolation)),
    st.sampled_from(get_args(ResizeMode)),
    st.floats(0, 1, exclude_min=True),
    st.sampled_from(get_args(Cropping)),
)
def test_json_there_and_back_is_the_identity(size, channels, interpolation, resize, crop_fraction, cropping) -> None:
    mean, std = zip(*channels, strict=True)
    settings = Preprocessing(
        size=size, mean=mean, std=std, interpolation=interpolation, resize=resize, crop_fraction=crop_fraction,
        cropping=cropping,
    )  # fmt: skip
    assert Preprocessing.from_json(settings.to_json()) == settings
    assert json.loads(settings.to_json()) == {
        "size": list(size),
        "mean": list(mean),
        "std": list(std),
        "interpolation": interpolation,
        "resize": resize,
        "crop_fraction": crop_fraction,
        "cropping": cropping,
    }


def test_an_int_is_a_square_and_lists_are_tuples() -> None:
    settings = Preprocessing(size=96, mean=[0.1], std=[0.2])  # type: ignore[arg-type]
    assert (settings.size, settings.mean, settings.std) == ((96, 96), (0.1,), (0.2,))


@pytest.mark.parametrize(("text", "sentence"), [("{", "not valid JSON for a Preprocessing"), ("[1]", "not list")])
def test_text_that_is_no_json_object_is_one_sentence(text, sentence) -> None:
    with pytest.raises(VitportError, match=sentence) as caught:
        Preprocessing.from_json(text)
    assert "\n" not in str(caught.value)
