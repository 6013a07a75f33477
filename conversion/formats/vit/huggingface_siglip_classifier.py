"""Hugging Face ``SiglipForImageClassification``: averages the patches and does not use SigLIP's MAP pooling."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import folder_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit import huggingface_siglip, huggingface_siglip2
from conversion.formats.vit.huggingface_clip import DROPS, TEXT_HALF, in_vision_model
from conversion.formats.vit.huggingface_siglip import (
    CONFIG_JSON,
    CONVENTIONS,
    PARTS,
    PREPROCESSING,
    TOWER,
    unsupported_by_siglip,
    vision_json,
)
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.transforms import PixelRows
from vit_spec import ViTConfig


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """Those of either version's tower."""
    second = config_json.get("model_type") == "siglip2"
    return (huggingface_siglip2 if second else huggingface_siglip).facts(config_json)


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    vision = {**vision_json(checkpoint), "model_type": "siglip_vision_model"}
    folder = folder_json(checkpoint, model_type="siglip", architecture="SiglipForImageClassification")
    return {**folder, "vision_config": vision}


def cannot_hold(config: ViTConfig) -> list[str]:
    return unsupported_by_siglip(config, "avg") + ([] if config.num_classes else ["num_classes=0"])


_PATCHES = Rule("patch_embed.proj.weight", "embeddings.patch_embedding.weight", PixelRows(or_convolution=True))
"""A linear layer in SigLIP 2's classifier."""
_HEAD = module("head", "classifier")


FORMAT = Format(
    name="huggingface-siglip-classifier",
    summary="Hugging Face SigLIP folder that classifies from the mean of the patches",
    names=Rules((_PATCHES, *(rule for rule in TOWER if rule.canonical != _PATCHES.canonical), *_HEAD)),
    signature=("embeddings.patch_embedding.weight", "encoder.layers.0.layer_norm1.weight", "classifier.weight"),
    before=("huggingface-siglip", "huggingface-siglip2"),
    group="huggingface",
    classes={"siglip": ("SiglipForImageClassification",), "siglip2": ("Siglip2ForImageClassification",)},
    base="vision_model.",
    set_aside=TEXT_HALF | {"head.*": "the pooling for comparing with texts, which the classifier does not read"},
    conventions=CONVENTIONS,
    facts=facts,
    remarks=huggingface_siglip2.remarks,
    preprocessing=PREPROCESSING,
    drops=DROPS,
    writer=huggingface_folder.writer(_config_json, place=in_vision_model),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(PARTS, head=("classifier",)), pool="avg", flat_patches="channels last", config_json=CONFIG_JSON
    ),
)
