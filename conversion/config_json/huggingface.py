"""Hugging Face's config.json and preprocessor_config.json, read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json.preprocessor import RESAMPLE
from conversion.source import SEVERAL_LABELS
from conversion.tensors.table import TensorTable
from vit_spec import Kind, Preprocessing, VitportError, parameters

_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu", "silu": "silu", "swish": "silu", "relu": "relu",
}  # fmt: skip
_FIELDS = {
    "hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads",
    "layer_norm_eps": "norm_eps", "qkv_bias": "qkv_bias", "patch_size": "patch_size", "num_channels": "in_channels",
    "hidden_dropout_prob": "drop_rate", "attention_probs_dropout_prob": "attn_drop_rate",
    "drop_path_rate": "drop_path_rate", "layerscale_value": "layer_scale", "num_register_tokens": "register_tokens",
    "attention_dropout": "attn_drop_rate",
}  # fmt: skip
_ACTIVATION_NAMES = {
    "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "silu": "silu", "relu": "relu",
}  # fmt: skip
ACTIVATIONS = tuple(_ACTIVATION_NAMES)
"""The activations that ``hidden_act`` can express."""
COMMON_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps", "patch_size", "num_channels",
)  # fmt: skip
_TOWER_DEFAULTS = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3, "image_size": 224,
    "attention_dropout": 0.0,
}  # fmt: skip


def model_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Config fields that a config.json states; shapes of the weights overrule them.

    Raises:
        VitportError: if ``hidden_act`` is unknown.
    """
    facts = {ours: config[theirs] for theirs, ours in _FIELDS.items() if theirs in config}
    if "hidden_act" in config:
        act = config["hidden_act"]
        if act not in _ACTIVATIONS:
            raise VitportError(f"config.json has hidden_act={act!r}, but must be one of {', '.join(_ACTIVATIONS)}.")
        facts["activation"] = _ACTIVATIONS[act]
    if "image_size" in config:
        size = config["image_size"]
        facts["image_size"] = (size, size) if isinstance(size, int) else tuple(size)
    if isinstance(facts.get("patch_size"), list):
        facts["patch_size"] = facts["patch_size"][0]  # the patch kernel's shape shows whether it is square
    return facts


def stated_fields(config: Mapping[str, Any]) -> set[str]:
    """The config fields that a config.json states itself, apart from those that transformers' classes add."""
    tower = config.get("vision_config", config)
    return {ours for theirs, ours in (_FIELDS | {"image_size": "image_size"}).items() if theirs in tower}


def hidden_width(config: Mapping[str, Any]) -> int | None:
    """The hidden width of the MLPs that a config.json states, in transformers' own arithmetic; ``None`` if it does not.

    DINOv2 states a ratio, of which a SwiGLU takes two thirds, rounded up to a multiple of 8.
    """
    tower = config.get("vision_config", config)
    if "mlp_ratio" in tower and "hidden_size" in tower:
        hidden = int(tower["hidden_size"] * tower["mlp_ratio"])
        return (int(hidden * 2 / 3) + 7) // 8 * 8 if tower.get("use_swiglu_ffn") else hidden
    return tower.get("intermediate_size")


def labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the classes in order; ``None`` if config.json has none, or only placeholders (LABEL_0, …)."""
    table = config.get("id2label")
    if not isinstance(table, Mapping) or not table:
        return None
    names = tuple(str(table[key]) for key in sorted(table, key=int))
    return None if all(name == f"LABEL_{at}" for at, name in enumerate(names)) else names


def model_json(checkpoint: Checkpoint, *, fields: tuple[str, ...]) -> dict[str, Any]:
    """The part of a config.json that describes the model: the common fields, and ``fields``."""
    config = checkpoint.config
    height, width = config.image_size
    values = {theirs: getattr(config, _FIELDS[theirs]) for theirs in (*COMMON_FIELDS, *fields)}
    return values | {
        "hidden_act": _ACTIVATION_NAMES[config.activation],
        "image_size": height if height == width else [height, width],
    }


def folder_json(checkpoint: Checkpoint, *, model_type: str, architecture: str) -> dict[str, Any]:
    """The part of a config.json that every model has: the class that loads it, the dtype, the labels."""
    kernel = next(it.name for it in parameters(checkpoint.config) if it.is_kernel)
    dtype = checkpoint.params.spec(kernel)[1]
    head = {"architectures": [architecture], "model_type": model_type, "dtype": str(dtype)}
    if "ForImageClassification" not in architecture:
        return head
    names = checkpoint.labels or tuple(f"LABEL_{at}" for at in range(checkpoint.config.num_classes))
    if checkpoint.several_labels:
        head["problem_type"] = SEVERAL_LABELS
    return head | {
        "id2label": {str(at): name for at, name in enumerate(names)},
        "label2id": {name: at for at, name in enumerate(names)},
    }


def preprocessor_json(preprocessing: Preprocessing) -> dict[str, Any]:
    """A preprocessor_config.json for ``preprocessing``: ViTImageProcessor for ``squash``, BitImageProcessor for
    ``shortest``, DeiTImageProcessor for ``squash_crop``.
    """
    height, width = preprocessing.size
    steps = {
        "do_resize": True, "resample": next(k for k, v in RESAMPLE.items() if v == preprocessing.interpolation),
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": list(preprocessing.mean), "image_std": list(preprocessing.std),
    }  # fmt: skip
    if preprocessing.resize == "squash":
        return {"image_processor_type": "ViTImageProcessor", "size": {"height": height, "width": width}, **steps}
    scaled = [math.floor(side / preprocessing.crop_fraction) for side in (height, width)]
    squashes = preprocessing.resize == "squash_crop"
    return {
        "image_processor_type": "DeiTImageProcessor" if squashes else "BitImageProcessor",
        "size": {"height": scaled[0], "width": scaled[1]} if squashes else {"shortest_edge": max(scaled)},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        **steps,
    }


def vision_facts(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """As :func:`model_facts`, for a vision tower's config.json, or for one that holds it as ``vision_config``.

    Missing fields have transformers' defaults, because nested configs were once written without them. ``defaults`` are
    those of one tower; ``_TOWER_DEFAULTS`` are the same in CLIP and SigLIP.
    """
    return model_facts({**_TOWER_DEFAULTS, **defaults, **config.get("vision_config", config)})


def ignored_pooler(table: TensorTable, config: Mapping[str, Any]) -> dict[str, str]:
    """The pooler of a model without one, which transformers' ViTModel and DeiTModel cannot leave out.

    :func:`identity_pooler` writes an identity with a linear ``pooler_act``, so ``pooler_output`` is the class token.

    Raises:
        VitportError: for a pooler with an activation other than tanh.
    """
    act = config.get("pooler_act", "tanh")
    if act == "tanh" or "pooler.dense.weight" not in table:
        return {}
    weight, bias = table["pooler.dense.weight"], table["pooler.dense.bias"]
    if act == "linear" and not bias.any() and np.array_equal(weight, np.eye(*weight.shape, dtype=weight.dtype)):
        return dict.fromkeys(("pooler.dense.weight", "pooler.dense.bias"), "the identity")
    raise VitportError(f"config.json has pooler_act={act!r}, which is not supported: expected tanh.")


def identity_pooler(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """What :func:`ignored_pooler` recognises; empty for a model with its own pooler, or with a head in its place."""
    config = checkpoint.config
    if config.num_classes or config.representation_size is not None:
        return {}
    *_, norm = (it.name for it in parameters(config) if it.kind is Kind.NORM)
    dtype = checkpoint.params.spec(norm)[1]
    return {
        "pooler.dense.weight": np.eye(config.embed_dim, dtype=dtype),
        "pooler.dense.bias": np.zeros(config.embed_dim, dtype),
    }
