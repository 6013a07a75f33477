"""Hugging Face ``BlipVisionModel`` and the vision halves of BLIP, BLIP-2 and InstructBLIP; read only.

The classes give the class token normed twice as ``pooler_output``. Features here are the class token of
``last_hidden_state``, normed once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conversion.config_json.huggingface import vision_facts
from conversion.format import Format
from conversion.formats.vit.huggingface_clip import BLOCK_PARTS, LAST_NORM, PREPROCESSING
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, module
from vit_spec import Preprocessing

_LAYER = "encoder.layers.{i}"
_BLIP = {"num_attention_heads": 12, "layer_norm_eps": 1e-5, "hidden_act": "gelu", "patch_size": 16, "image_size": 384}
_BLIP_2 = {
    "hidden_size": 1408, "num_hidden_layers": 39, "num_attention_heads": 16, "layer_norm_eps": 1e-6, "patch_size": 14,
    "hidden_act": "gelu", "image_size": 224,
}  # fmt: skip
_CLASSES = {
    "blip_vision_model": ("BlipVisionModel",),
    "blip": (
        "BlipModel", "BlipForConditionalGeneration", "BlipForImageTextRetrieval", "BlipForQuestionAnswering",
    ),
}  # fmt: skip
_CLASSES_2 = {
    "blip_2_vision_model": ("Blip2VisionModel",),
    "blip-2": ("Blip2Model", "Blip2ForConditionalGeneration", "Blip2ForImageTextRetrieval"),
    "instructblip_vision_model": ("InstructBlipVisionModel",),
    "instructblip": ("InstructBlipForConditionalGeneration", "InstructBlipModel"),
}


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """BLIP-2's and InstructBLIP's defaults are those of EVA-CLIP's giant."""
    newer = config_json.get("model_type") in _CLASSES_2
    return vision_facts(config_json, _BLIP_2 if newer else _BLIP)


FORMAT = Format(
    name="huggingface-blip",
    summary="Hugging Face BLIP, BLIP-2 or InstructBLIP, vision half",
    names=Rules((
        Rule("cls_token", "embeddings.class_embedding"),
        Rule("pos_embed", "embeddings.position_embedding"),
        *module("patch_embed.proj", "embeddings.patch_embedding"),
        *module("blocks.{i}.norm1", f"{_LAYER}.layer_norm1"),
        *module("blocks.{i}.attn.qkv", f"{_LAYER}.self_attn.qkv"),
        *module("blocks.{i}.attn.proj", f"{_LAYER}.self_attn.projection"),
        *module("blocks.{i}.norm2", f"{_LAYER}.layer_norm2"),
        *(rule for at in (1, 2) for rule in module(f"blocks.{{i}}.mlp.fc{at}", f"{_LAYER}.mlp.fc{at}")),
        *LAST_NORM,
    )),
    signature=("embeddings.class_embedding", "encoder.layers.0.self_attn.qkv.weight", "post_layernorm.weight"),
    classes=_CLASSES | _CLASSES_2,
    conventions={"pool": "token", "pos_embed": "prefix", "pos_embed_resize": "torch-bicubic"},
    facts=facts,
    remarks=lambda table: ["features are the class token normed once; transformers' pooler_output norms it twice"],
    preprocessing=Preprocessing(mean=PREPROCESSING.mean, std=PREPROCESSING.std, resize="squash"),
    second_reading=SecondReading(
        names=replace(
            BLOCK_PARTS,
            tokens=(("embeddings.class_embedding",),), positions=("embeddings.position_embedding",),
            qkv=("self_attn.qkv",), query=(), key=(), value=(), out=("self_attn.projection",),
            norm=("post_layernorm",),
        ),
        pool="token",
    ),
)  # fmt: skip
