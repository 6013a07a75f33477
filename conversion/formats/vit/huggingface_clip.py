"""Hugging Face ``CLIPVisionModel``, ``CLIPVisionModelWithProjection``, and the vision half of a ``CLIPModel``."""

from collections.abc import Mapping
from typing import Any

from conversion.capacity import beyond, not_square
from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_json, vision_facts
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.tensors.rules import Rule, Rules, joined, module
from conversion.tensors.transforms import Leading, WithoutBias
from vit_spec import Preprocessing, ViTConfig

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
    "logit_scale": "the temperature between pictures and texts",
    "logit_bias": "the offset between pictures and texts",
}
FORGETS = ("pos_embed_resize", "drop_rate", "drop_path_rate")
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONVENTIONS = {"pool": "token", "pos_embed": "prefix", "pos_embed_resize": "torch-bicubic"}
PREPROCESSING = Preprocessing(mean=CLIP_MEAN, std=CLIP_STD, crop_fraction=1.0)
_DEFAULTS = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3, "image_size": 224,
    "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "attention_dropout": 0.0,
}  # fmt: skip


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    return vision_facts(config_json, _DEFAULTS)


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """``projection_dim`` is the width of the head, which has no bias and whose outputs are no classes."""
    config = checkpoint.config
    projected = "WithProjection" if config.num_classes else ""
    return {
        **folder_json(checkpoint, model_type="clip_vision_model", architecture=f"CLIPVisionModel{projected}"),
        **model_json(checkpoint, fields=("attention_dropout",)),
        "intermediate_size": config.hidden_dim,
        "projection_dim": config.num_classes or 512,
    }


def cannot_hold(config: ViTConfig) -> list[str]:
    """A head must have a zero bias too, which only writing it shows."""
    return beyond(config, activation=ACTIVATIONS, pre_norm=(True,), patch_bias=(False,)) + not_square(config)


def in_vision_model(name: str, checkpoint: Checkpoint) -> str:
    """Everything but the projection lies in ``vision_model.``, head or no head."""
    del checkpoint
    return name if name.startswith(("visual_projection.", "classifier.")) else f"vision_model.{name}"


FORMAT = Format(
    name="huggingface-clip",
    summary="Hugging Face CLIP folder, vision half",
    names=Rules((
        *TOWER,
        *LAST_NORM,
        Rule(("head.weight", "head.bias"), "visual_projection.weight", WithoutBias()),
    )),
    signature=("embeddings.patch_embedding.weight", "embeddings.class_embedding", "pre_layrnorm.weight"),
    base="vision_model.",
    set_aside=TEXT_HALF,
    conventions=CONVENTIONS,
    facts=facts,
    preprocessing=PREPROCESSING,
    forgets=("labels", *FORGETS),
    writer=huggingface_folder.writer(config_json, place=in_vision_model),
    cannot_hold=cannot_hold,
)  # fmt: skip
