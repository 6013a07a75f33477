"""Fields of :class:`ViTConfig` as keyword arguments, under their own names or timm's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from itertools import chain
from typing import Any

from vit_spec.errors import VitportError
from vit_spec.vit.config import FIELDS

TIMM_NAMES: dict[str, str] = {
    "img_size": "image_size",
    "in_chans": "in_channels",
    "global_pool": "pool",
    "pool_include_prefix": "pool_prefix",
    "init_values": "layer_scale",
    "reg_tokens": "register_tokens",
    "scale_attn_norm": "attn_norm",
    "scale_mlp_norm": "mlp_norm",
}
"""Arguments of timm's ``VisionTransformer`` → the field that means the same.

``global_pool`` sets the pooling alone. For a mean of the patches timm also moves the last norm behind it, unless it is
given ``fc_norm=False``; here that is ``final_norm="pooled"``.
"""

TIMM_NORM_BEHIND_POOLING = "fc_norm"
"""timm's argument for a last norm on the pooled vector; ``None`` means under a mean alone."""


def given_fields(fields: Mapping[str, Any], **named: Any) -> dict[str, Any]:
    """The fields that a caller gave: all of ``fields``, and those of ``named`` that are not ``None``.

    Raises:
        VitportError: as :func:`config_fields`.
    """
    return config_fields(fields, {name: value for name, value in named.items() if value is not None})


def config_fields(*options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by the names of ``ViTConfig``'s fields.

    Raises:
        VitportError: for an unknown name, with the nearest known ones; for a field that is given under two names.
    """
    found: dict[str, Any] = {}
    for option, value in chain.from_iterable(group.items() for group in options):
        name = TIMM_NAMES.get(option, option)
        if name not in FIELDS:
            near = difflib.get_close_matches(option, [*FIELDS, *TIMM_NAMES], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"the fields are {', '.join(FIELDS)}."
            raise VitportError(f"{option}={value!r} is not a field of ViTConfig: {hint}")
        if name in found:
            alias = next(alias for alias, field in TIMM_NAMES.items() if field == name)
            raise VitportError(f"{name} is given twice, once as timm's {alias}: give one of them.")
        found[name] = value
    return found
