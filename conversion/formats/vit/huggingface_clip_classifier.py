"""Hugging Face ``CLIPForImageClassification``: classifies from the mean of the patches, without CLIP's last norm."""

from dataclasses import replace
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_clip import (
    CONFIG_JSON,
    CONVENTIONS,
    DROPS,
    PARTS,
    PREPROCESSING,
    TEXT_HALF,
    TOWER,
    facts,
    in_vision_model,
)
from conversion.limits import not_square, unsupported_fields
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rules, module
from vit_spec import ViTConfig


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    vision = {
        **model_json(checkpoint, fields=("attention_dropout",)),
        "intermediate_size": checkpoint.config.hidden_dim,
        "model_type": "clip_vision_model",
    }
    folder = folder_json(checkpoint, model_type="clip", architecture="CLIPForImageClassification")
    return {**folder, "vision_config": vision}


def cannot_hold(config: ViTConfig) -> list[str]:
    different = {"pre_norm": (True,), "patch_bias": (False,), "pool": ("avg",), "final_norm": ("none",)}
    headless = [] if config.num_classes else ["num_classes=0"]
    return unsupported_fields(config, activation=ACTIVATIONS, **different) + headless + not_square(config)


def _unread_norm(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The norm that transformers' class has and its forward pass does not read, as ones and zeros."""
    dtype = checkpoint.params.spec("norm_pre.weight")[1]
    width = checkpoint.config.embed_dim
    return {"post_layernorm.weight": np.ones(width, dtype), "post_layernorm.bias": np.zeros(width, dtype)}


FORMAT = Format(
    name="huggingface-clip-classifier",
    summary="Hugging Face CLIP folder that classifies from the mean of the patches",
    names=Rules((*TOWER, *module("head", "classifier"))),
    signature=("embeddings.patch_embedding.weight", "embeddings.class_embedding", "classifier.weight"),
    before=("huggingface-clip", "huggingface-siglip", "huggingface-siglip-classifier"),
    group="huggingface",
    classes={"clip": ("CLIPForImageClassification",), "metaclip_2": ("MetaClip2ForImageClassification",)},
    base="vision_model.",
    set_aside=TEXT_HALF | {"post_layernorm.*": "a norm after what the classifier reads"},
    conventions=CONVENTIONS | {"pool": "avg", "final_norm": "none"},
    facts=facts,
    preprocessing=PREPROCESSING,
    drops=DROPS,
    writer=huggingface_folder.writer(_config_json, place=in_vision_model, filler=_unread_norm),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(PARTS, norm=(), head=("classifier",)), pool="avg", config_json=CONFIG_JSON
    ),
)
