"""Hugging Face's config.json and preprocessor_config.json in our terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_spec import Preprocessing, VitportError

_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu", "silu": "silu", "swish": "silu", "relu": "relu",
}  # fmt: skip
_FIELDS = {
    "hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads",
    "layer_norm_eps": "norm_eps", "qkv_bias": "qkv_bias", "patch_size": "patch_size", "num_channels": "in_channels",
    "hidden_dropout_prob": "drop_rate", "attention_probs_dropout_prob": "attn_drop_rate",
    "drop_path_rate": "drop_path_rate", "layerscale_value": "layer_scale", "num_register_tokens": "register_tokens",
}  # fmt: skip
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's ``Image.Resampling``, which preprocessor_config.json stores as a number."""


def model_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """ViTConfig fields that a config.json tells; the shapes of the weights still win over them."""
    facts = {ours: config[theirs] for theirs, ours in _FIELDS.items() if theirs in config}
    if "hidden_act" in config:
        act = config["hidden_act"]
        if act not in _ACTIVATIONS:
            raise VitportError(
                f"config.json has hidden_act={act!r}, which is not known here: known are {', '.join(_ACTIVATIONS)}."
            )
        facts["activation"] = _ACTIVATIONS[act]
    if "image_size" in config:
        size = config["image_size"]
        facts["image_size"] = (size, size) if isinstance(size, int) else tuple(size)
    if isinstance(facts.get("patch_size"), list):
        facts["patch_size"] = facts["patch_size"][0]  # the patch kernel's shape shows whether it is square
    if config.get("pooler_act", "tanh") != "tanh":
        raise VitportError(f"config.json has pooler_act={config['pooler_act']!r}: only tanh is known here.")
    return facts


def preprocessing(preprocessor: Mapping[str, Any], default: Preprocessing) -> Preprocessing:
    """What a preprocessor_config.json does to a picture; what it leaves open is taken from ``default``."""
    size = _height_width(
        preprocessor.get("crop_size") if preprocessor.get("do_center_crop") else preprocessor.get("size")
    )
    changes: dict[str, Any] = {}
    if size is not None:
        changes["size"] = size
    for theirs, ours in {"image_mean": "mean", "image_std": "std"}.items():
        if isinstance(preprocessor.get(theirs), list):
            changes[ours] = tuple(preprocessor[theirs])
    if preprocessor.get("resample") in _RESAMPLE:
        changes["interpolation"] = _RESAMPLE[preprocessor["resample"]]
    if preprocessor.get("do_center_crop"):
        resized = preprocessor.get("size")
        edge = resized.get("shortest_edge", resized.get("height")) if isinstance(resized, dict) else resized
        if size is not None and isinstance(edge, int) and edge >= max(size):
            changes |= {"resize": "shortest", "crop_fraction": max(size) / edge}
    else:
        changes["resize"] = "squash"
    return default.replace(**changes)


def labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the classes in order; ``None`` where config.json has none, or only placeholders (LABEL_0, …)."""
    table = config.get("id2label")
    if not isinstance(table, Mapping) or not table:
        return None
    names = tuple(str(table[key]) for key in sorted(table, key=int))
    return None if all(name == f"LABEL_{at}" for at, name in enumerate(names)) else names


def _height_width(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            return int(size["height"]), int(size["width"])
        if "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
    return None
