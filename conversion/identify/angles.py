"""Rotary positions that only a graph shows: at the size of its images, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.identify.resolve import Fact
from conversion.identify.vit import sizes_from_shapes
from conversion.tensors.table import Shapes
from vit_spec import Config, ViTConfig
from vit_spec.vit.rotary import MixedRotary, Rotary, turns

_ALIKE = 1e-4
"""Of cosines and sines: a graph holds them in float32."""


def with_stated_rotary(
    told: Mapping[str, Fact], shapes: Shapes, given: Mapping[str, Any], named: Config | None, named_by: str
) -> dict[str, Fact]:
    """What a graph tells, with the rotary positions that the caller states where they are the same at its size.

    A grid that coordinates are scaled to shows at other sizes alone, so who states it knows more than the graph.

    Args:
        told: what the graph tells.
        shapes: canonical name → shape.
        given: what the caller states.
        named: the config that the caller gives, and how, in words.
    """
    facts = dict(told)
    own = told["rotary"].value if "rotary" in told else None
    stated = given.get("rotary", named.rotary if isinstance(named, ViTConfig) else None)
    if own is not None and stated is not None and _points(own, told, shapes) is not None:
        mine, theirs = _points(own, told, shapes), _points(stated, told, shapes)
        if own.pairs == stated.pairs and theirs is not None and np.abs(mine - theirs).max() < _ALIKE:
            facts["rotary"] = Fact(stated, "the caller" if "rotary" in given else named_by)
    return facts


def _points(rotary: Rotary, told: Mapping[str, Fact], shapes: Shapes) -> Any:
    """Cosines and sines of all patches, (2, N, d / 2); ``None`` if they are learned."""
    if isinstance(rotary, MixedRotary):
        return None
    sizes = sizes_from_shapes(shapes)
    width, patch = sizes["embed_dim"], sizes["patch_size"]
    height, wide = told["image_size"].value
    return np.array(turns(rotary, (height // patch, wide // patch), width // told["num_heads"].value, 0))
