"""Hugging Face ``CLIPVisionModel``, ``CLIPVisionModelWithProjection``, and the vision half of a ``CLIPModel``.

The vision classes of Chinese-CLIP, AltCLIP, CLIPSeg and OWL-ViT compute the same, OWL-ViT's with the first norm's name
spelt as it is elsewhere.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_json, vision_facts
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.limits import not_square, unsupported_fields
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, joined, module
from conversion.tensors.transforms import Leading, WithoutBias
from vit_spec import Preprocessing, ViTConfig
from vit_spec.preprocessing import CLIP_MEAN, CLIP_STD

BLOCKS = (
    *module("blocks.{i}.norm1", "encoder.layers.{i}.layer_norm1"),
    *joined("blocks.{i}.attn.qkv", *(f"encoder.layers.{{i}}.self_attn.{part}_proj" for part in "qkv")),
    *module("blocks.{i}.attn.proj", "encoder.layers.{i}.self_attn.out_proj"),
    *module("blocks.{i}.norm2", "encoder.layers.{i}.layer_norm2"),
    *module("blocks.{i}.mlp.fc1", "encoder.layers.{i}.mlp.fc1"),
    *module("blocks.{i}.mlp.fc2", "encoder.layers.{i}.mlp.fc2"),
)
"""The same in CLIP and SigLIP."""
LAST_NORM = module("norm", "post_layernorm")
TOWER = (
    Rule("cls_token", "embeddings.class_embedding", Leading(2)),
    Rule("pos_embed", "embeddings.position_embedding.weight", Leading(1)),
    Rule("patch_embed.proj.weight", "embeddings.patch_embedding.weight"),
    *module("norm_pre", "pre_layrnorm"),
    *BLOCKS,
)
TEXT_HALF = {
    "embeddings.position_ids": "the numbers 0, 1, 2, …",
    "text_model.*": "the text half",
    "text_projection.*": "the text half",
    "logit_scale": "the temperature between images and texts",
    "logit_bias": "the offset between images and texts",
}
DROPS = ("cropping", "pos_embed_resize", "drop_rate", "drop_path_rate")
CONVENTIONS = {"pool": "token", "pos_embed": "prefix", "pos_embed_resize": "torch-bicubic"}
PREPROCESSING = Preprocessing(mean=CLIP_MEAN, std=CLIP_STD, crop_fraction=1.0)
BLOCK_PARTS = PartNames(
    patches=("embeddings.patch_embedding",), positions=("embeddings.position_embedding.weight",),
    block=("encoder.layers.{i}",),
    norm1=("layer_norm1",), query=("self_attn.q_proj",), key=("self_attn.k_proj",), value=("self_attn.v_proj",),
    out=("self_attn.out_proj",), norm2=("layer_norm2",), first=("mlp.fc1",), second=("mlp.fc2",),
)  # fmt: skip
"""The same in CLIP and SigLIP."""
PARTS = replace(
    BLOCK_PARTS,
    tokens=(("embeddings.class_embedding",),),
    norm_pre=("pre_layrnorm", "pre_layernorm"),
    norm=("post_layernorm",),
    head=("visual_projection",),
)
CONFIG_JSON = {"num_attention_heads": 12, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"}
"""Defaults of transformers' CLIPVisionConfig."""
_DEFAULTS = {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    return vision_facts(config_json, _DEFAULTS)


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """``projection_dim`` is the width of the head, which has no bias and whose outputs are not classes."""
    config = checkpoint.config
    projected = "WithProjection" if config.num_classes else ""
    return {
        **folder_json(checkpoint, model_type="clip_vision_model", architecture=f"CLIPVisionModel{projected}"),
        **model_json(checkpoint, fields=("attention_dropout",)),
        "intermediate_size": config.hidden_dim,
        "projection_dim": config.num_classes or 512,
    }


def cannot_hold(config: ViTConfig) -> list[str]:
    """The head's bias must be zero too; that shows only when it is written."""
    return unsupported_fields(config, activation=ACTIVATIONS, pre_norm=(True,), patch_bias=(False,)) + not_square(
        config
    )


def in_vision_model(name: str, checkpoint: Checkpoint) -> str:
    """Everything but the projection lies in ``vision_model.``, with or without a head."""
    del checkpoint
    return name if name.startswith(("visual_projection.", "classifier.")) else f"vision_model.{name}"


FORMAT = Format(
    name="huggingface-clip",
    summary="Hugging Face CLIP folder, vision half",
    names=Rules((
        *TOWER,
        *module("norm_pre", "pre_layernorm"),
        *LAST_NORM,
        Rule(("head.weight", "head.bias"), "visual_projection.weight", WithoutBias("head", remedy="--head drop")),
    )),
    signature=(
        "embeddings.patch_embedding.weight",
        "embeddings.class_embedding",
        ("pre_layrnorm.weight", "pre_layernorm.weight"),
    ),
    before=("huggingface-siglip",),
    group="huggingface",
    classes={
        "clip": ("CLIPModel",),
        "clip_vision_model": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
        "metaclip_2": ("MetaClip2Model",),
        "metaclip_2_vision_model": ("MetaClip2VisionModel", "MetaClip2VisionModelWithProjection"),
        "altclip_vision_model": ("AltCLIPVisionModel",),
        "chinese_clip": ("ChineseCLIPModel",),
        "chinese_clip_vision_model": ("ChineseCLIPVisionModel",),
        "clipseg": ("CLIPSegModel",),
        "clipseg_vision_model": ("CLIPSegVisionModel",),
        "owlvit": ("OwlViTModel",),
        "owlvit_vision_model": ("OwlViTVisionModel",),
        "owlv2": ("Owlv2Model",),
        "owlv2_vision_model": ("Owlv2VisionModel",),
    },
    base="vision_model.",
    set_aside=TEXT_HALF,
    conventions=CONVENTIONS,
    facts=facts,
    preprocessing=PREPROCESSING,
    drops=("labels", *DROPS),
    writer=huggingface_folder.writer(config_json, place=in_vision_model),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(names=PARTS, pool="token", config_json=CONFIG_JSON),
)  # fmt: skip
