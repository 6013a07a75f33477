"""``vit_parity/points/toy``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.toy_family.spec import ToyConfig
from vit_parity.points import Point
from vit_spec import segments


def embed_point(config: ToyConfig) -> Point:
    return Point("embed", "patch_embed")


def points(config: ToyConfig) -> Iterator[Point]:
    yield embed_point(config)
    for segment in segments(config):
        for index in range(segment.count):
            at = segment.block(index)
            yield Point(f"{at}.attn.softmax", f"{at}.attn.attn_drop", "input")
            yield Point(at, at)
    yield Point("norm", "norm")
    yield Point("logits", "")


def patch_maps(x: np.ndarray, config: ToyConfig) -> None:
    return None


def part(x: Any, point: Point, config: ToyConfig) -> Any:
    raise NotImplementedError
