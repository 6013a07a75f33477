"""Hugging Face ``CLIPForImageClassification``: the mean of the patches before CLIP's last norm, which is left idle."""

from typing import Any

import numpy as np

from conversion.capacity import beyond, not_square
from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_clip import (
    CONVENTIONS,
    FORGETS,
    PREPROCESSING,
    TEXT_HALF,
    TOWER,
    facts,
    in_vision_model,
)
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
    return beyond(config, activation=ACTIVATIONS, **different) + headless + not_square(config)


def _idle_norm(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The norm that transformers' class has and its forward pass does not: the identity's factor and bias."""
    dtype = checkpoint.params.spec("norm_pre.weight")[1]
    width = checkpoint.config.embed_dim
    return {"post_layernorm.weight": np.ones(width, dtype), "post_layernorm.bias": np.zeros(width, dtype)}


FORMAT = Format(
    name="huggingface-clip-classifier",
    summary="Hugging Face CLIP folder that classifies from the mean of the patches",
    names=Rules((*TOWER, *module("head", "classifier"))),
    signature=("embeddings.patch_embedding.weight", "embeddings.class_embedding", "classifier.weight"),
    base="vision_model.",
    set_aside=TEXT_HALF | {"post_layernorm.*": "a norm behind what the classifier reads"},
    conventions=CONVENTIONS | {"pool": "avg", "final_norm": "none"},
    facts=facts,
    preprocessing=PREPROCESSING,
    forgets=FORGETS,
    writer=huggingface_folder.writer(_config_json, place=in_vision_model, filler=_idle_norm),
    cannot_hold=cannot_hold,
)
