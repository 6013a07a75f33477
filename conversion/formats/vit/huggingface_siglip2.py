"""Hugging Face ``Siglip2VisionModel`` and the vision half of a ``Siglip2Model``: SigLIP 2 for images of any shape.

It is read and written at the grid of its position table. Its patch embedding is a linear layer; all else is SigLIP's.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import folder_json, vision_facts
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_clip import DROPS, TEXT_HALF, in_vision_model
from conversion.formats.vit.huggingface_siglip import (
    CONVENTIONS,
    DEFAULTS,
    POOLING,
    PREPROCESSING,
    SECOND_READING,
    SIGNATURE,
    TOWER,
    cannot_hold,
    check_head,
    vision_json,
)
from conversion.tensors.rules import Rule, Rules
from conversion.tensors.table import TensorTable
from conversion.tensors.transforms import PixelRows


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """As for SigLIP; the number of patches stands for the image size."""
    known = vision_facts(config_json, DEFAULTS)
    side = math.isqrt(config_json.get("vision_config", config_json).get("num_patches", 256)) * known["patch_size"]
    return known | {"image_size": (side, side)}


def remarks(table: TensorTable) -> list[str]:
    """What transformers does with images of another shape, in every file whose patch embedding is a linear layer."""
    if len(table.shapes["embeddings.patch_embedding.weight"]) != 2:
        return []
    return [
        "every image is squashed to the grid of the position table, where transformers keeps its shape, resizes the "
        "table and pads: only square images get the same answers"
    ]


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    stated = {name: value for name, value in vision_json(checkpoint).items() if name != "image_size"}
    return {
        **folder_json(checkpoint, model_type="siglip2_vision_model", architecture="Siglip2VisionModel"),
        **stated,
        "num_patches": checkpoint.config.num_patches,
    }


def _preprocessor_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """transformers keeps an image's shape where it can, so that images that are not square get another grid."""
    told = checkpoint.preprocessing
    return {
        "image_processor_type": "Siglip2ImageProcessor",
        "patch_size": checkpoint.config.patch_size,
        "max_num_patches": checkpoint.config.num_patches,
        "image_mean": list(told.mean),
        "image_std": list(told.std),
    }


_PATCHES = Rule("patch_embed.proj.weight", "embeddings.patch_embedding.weight", PixelRows())

FORMAT = Format(
    name="huggingface-siglip2",
    summary="Hugging Face SigLIP 2 folder for images of any shape, vision half",
    names=Rules((_PATCHES, *(rule for rule in TOWER if rule.canonical != _PATCHES.canonical), *POOLING)),
    signature=SIGNATURE,
    ranks={"embeddings.patch_embedding.weight": 2},
    before=("huggingface-siglip",),
    classes={"siglip2": ("Siglip2Model",), "siglip2_vision_model": ("Siglip2VisionModel",)},
    base="vision_model.",
    set_aside=TEXT_HALF,
    ignored_if=check_head,
    conventions=CONVENTIONS,
    facts=facts,
    remarks=remarks,
    preprocessing=PREPROCESSING,
    drops=("preprocessing", *DROPS),
    writer=huggingface_folder.writer(_config_json, place=in_vision_model, preprocessor_json=_preprocessor_json),
    cannot_hold=cannot_hold,
    second_reading=replace(SECOND_READING, flat_patches="channels last"),
)
