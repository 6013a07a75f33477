"""Hugging Face ``SiglipVisionModel`` and the vision half of a ``SiglipModel``: MAP pooling, no class token."""

from collections.abc import Mapping
from typing import Any

from conversion.capacity import beyond, not_square
from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_json, vision_facts
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_clip import BLOCKS, FORGETS, LAST_NORM, TEXT_HALF, in_vision_model
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.transforms import Divided, Leading
from vit_spec import Preprocessing, ViTConfig
from vit_spec.preprocessing import HALF

TOWER = (
    Rule("pos_embed", "embeddings.position_embedding.weight", Leading(1)),
    *module("patch_embed.proj", "embeddings.patch_embedding"),
    *BLOCKS,
    *LAST_NORM,
)
_POOLING = (
    Rule("attn_pool.latent", "head.probe"),
    *(
        Rule((f"attn_pool.q.{leaf}", f"attn_pool.kv.{leaf}"), f"head.attention.in_proj_{leaf}", Divided((1, 2)))
        for leaf in ("weight", "bias")
    ),
    *module("attn_pool.proj", "head.attention.out_proj"),
    *module("attn_pool.norm", "head.layernorm"),
    *module("attn_pool.mlp.fc1", "head.mlp.fc1"),
    *module("attn_pool.mlp.fc2", "head.mlp.fc2"),
)
CONVENTIONS = {"pos_embed": "patch", "pos_embed_resize": "torch-bicubic"}
PREPROCESSING = Preprocessing(mean=HALF, std=HALF, resize="squash")
_DEFAULTS = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3, "image_size": 224,
    "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "attention_dropout": 0.0,
}  # fmt: skip


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    return vision_facts(config_json, _DEFAULTS)


def vision_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of SiglipVisionConfig that change results."""
    return {
        **model_json(checkpoint, fields=("attention_dropout",)),
        "intermediate_size": checkpoint.config.hidden_dim,
        "vision_use_head": checkpoint.config.pool == "map",
    }


def beyond_siglip(config: ViTConfig, pool: str) -> list[str]:
    """What ``cannot_hold`` says of SigLIP's towers; their position table has a row for each patch and no other."""
    prefixless = ("patch", "prefix", "all")  # without class token and registers these are one and the same
    complaints = beyond(config, activation=ACTIVATIONS, class_token=(False,), pool=(pool,), pos_embed=prefixless)
    return complaints + not_square(config)


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        **folder_json(checkpoint, model_type="siglip_vision_model", architecture="SiglipVisionModel"),
        **vision_json(checkpoint),
    }


def cannot_hold(config: ViTConfig) -> list[str]:
    """Behind the MAP pooling there is no place for a head."""
    return beyond_siglip(config, "map") + ([f"num_classes={config.num_classes}"] if config.num_classes else [])


FORMAT = Format(
    name="huggingface-siglip",
    summary="Hugging Face SigLIP folder, vision half",
    names=Rules((*TOWER, *_POOLING)),
    signature=("embeddings.patch_embedding.weight", "encoder.layers.0.layer_norm1.weight", "head.probe"),
    base="vision_model.",
    set_aside=TEXT_HALF,
    conventions=CONVENTIONS,
    facts=facts,
    preprocessing=PREPROCESSING,
    forgets=FORGETS,
    writer=huggingface_folder.writer(_config_json, place=in_vision_model),
    cannot_hold=cannot_hold,
)
