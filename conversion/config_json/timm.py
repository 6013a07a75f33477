"""The config.json that timm puts beside weights on the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_spec import Preprocessing, ViTConfig, get_model

_GOOGLE_TAGS = ("augreg", "orig", "sam")
"""Beginnings of tags of weights that Google trained with the tanh GELU and timm runs with the erf form."""
_INTERPOLATIONS = {"bilinear", "bicubic", "nearest"}


def architecture(config: Mapping[str, Any]) -> tuple[ViTConfig, str] | None:
    """The model that config.json names, and the name's origin in words; ``None`` for other config.json files.

    Raises:
        VitportError: for an architecture that is not a plain ViT.
    """
    if "architecture" not in config or "pretrained_cfg" not in config:
        return None
    name = str(config["architecture"])
    return get_model(name).config, f"config.json, which names {name}"


def preprocessing(config: Mapping[str, Any], default: Preprocessing) -> Preprocessing:
    """The preprocessing in ``pretrained_cfg``; what it leaves open comes from ``default``."""
    told = config.get("pretrained_cfg", {})
    changes: dict[str, Any] = {name: tuple(told[name]) for name in ("mean", "std") if name in told}
    if told.get("interpolation") in _INTERPOLATIONS:
        changes["interpolation"] = told["interpolation"]
    if told.get("crop_pct"):
        changes["crop_fraction"] = told["crop_pct"]
    if told.get("crop_mode") == "squash":
        changes["resize"] = "squash"
    return default.replace(**changes)


def labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the classes in order; ``None`` if config.json has none."""
    names = config.get("label_names")
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def remarks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a user should know and timm does not say."""
    tag = str(config.get("pretrained_cfg", {}).get("tag", ""))
    if not tag.startswith(_GOOGLE_TAGS):
        return ()
    return (
        f"the tag {tag} marks weights that Google trained with the tanh form of GELU; timm runs them with erf, and so "
        "does this checkpoint unless its activation is set to tanh",
    )
