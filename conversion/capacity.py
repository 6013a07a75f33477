"""What a format has no place for, told from the config alone."""

from __future__ import annotations

import dataclasses
from typing import Any

from vit_spec import ViTConfig

_HELD_BY_ALL = frozenset({
    "image_size", "patch_size", "in_channels", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio",
    "mlp_hidden_dim", "norm_eps", "pos_embed_resize", "drop_rate", "attn_drop_rate", "drop_path_rate",
})  # fmt: skip
"""Sizes, and what changes no output of the model as it is: training rates and the way to another picture size."""


def beyond(config: ViTConfig, **allowed: tuple[Any, ...]) -> list[str]:
    """The config's fields whose values a format cannot hold, as ``field=value``.

    A field named in ``allowed`` may have those values; every other has its default, or is a size.
    """
    default = ViTConfig()
    rules = {
        field.name: (getattr(default, field.name),)
        for field in dataclasses.fields(ViTConfig)
        if field.name not in _HELD_BY_ALL
    }
    rules |= {"qk_scale": (None, config.head_dim**-0.5)} | allowed  # the default, told or not
    return [
        f"{name}={getattr(config, name)!r}" for name, values in rules.items() if getattr(config, name) not in values
    ]


def not_square(config: ViTConfig) -> list[str]:
    """A complaint about pictures that are not square, for formats that know one side only."""
    height, width = config.image_size
    return [] if height == width else [f"pictures of {height}x{width} pixels, being square only"]
