"""``pretrained_cfg``. Oracle: the evaluation transform that timm makes of it, on an image that is not square."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("timm", reason="the peer suite needs timm and torchvision: docs/testing.md")

from timm import data

from conversion.config_json.timm import preprocessing
from conversion.images.image import crop, normalize
from vit_spec import VitportError

pytestmark = pytest.mark.peer
CHOICES = {
    "input_size": [[3, 24, 24], [3, 32, 20]], "interpolation": ["bilinear", "bicubic", "nearest", "lanczos", "box", ""],
    "crop_pct": [0.875, 0.9, 1.0, 0.95, None], "crop_mode": ["center", "squash", "border", None],
    "mean": [[0.5] * 3, [0.1, 0.2, 0.3], None], "std": [[0.5] * 3, [0.1, 0.2, 0.3], None],
}  # fmt: skip


def test_random_configurations_give_timms_pixels_or_are_refused() -> None:
    """Both divide, subtract and divide in float32: 6e-8 of pixels up to 10, in the same order."""
    draw, rng = random.Random(1), np.random.default_rng(0)
    read = 0
    for _ in range(80):
        told = {key: draw.choice(choices) for key, choices in CHOICES.items() if draw.random() < 0.6}
        image = Image.fromarray(rng.integers(0, 256, (61, 47 + draw.randrange(4), 3), dtype=np.uint8))
        try:
            steps = preprocessing({"pretrained_cfg": told | {"tag": "x"}}, 3)
        except VitportError as error:
            assert told["crop_mode"] == "border", error
            continue
        transform = data.create_transform(**data.resolve_data_config(pretrained_cfg=told | {"tag": "x"}))
        expected = transform(image).numpy().transpose(1, 2, 0)
        np.testing.assert_allclose(normalize(crop(image, steps), steps), expected, rtol=0, atol=1e-5)
        read += 1
    assert read > 50


@pytest.mark.parametrize(("key", "value"), [("interpolation", "random"), ("crop_pct", 1.2), ("crop_mode", "border"),
                                            ("input_size", [1, 8, 8]), ("mean", [0.5]), ("std", "x")])  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_its_key(key, value) -> None:
    with pytest.raises(VitportError, match=f"has {key}="):
        preprocessing({"pretrained_cfg": {key: value}}, 3)
