"""Fields of :class:`ViTConfig` as keyword arguments, under their own names or timm's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
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


def config_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by the names of ``ViTConfig``'s fields.

    Raises:
        VitportError: for an unknown name, with the nearest known ones; for a field that is given under two names.
    """
    found: dict[str, Any] = {}
    for option, value in options.items():
        name = TIMM_NAMES.get(option, option)
        if name not in FIELDS:
            near = difflib.get_close_matches(option, [*FIELDS, *TIMM_NAMES], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"the fields are {', '.join(FIELDS)}."
            raise VitportError(f"{option}={value!r} is not a field of ViTConfig: {hint}")
        if name in found:
            raise VitportError(f"{name} is given twice, also as timm's {_timm(name)}: give one of them.")
        found[name] = value
    return found


def _timm(field: str) -> str:
    return next(alias for alias, name in TIMM_NAMES.items() if name == field)
