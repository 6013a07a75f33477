"""Hugging Face ``SiglipVisionModel`` and the vision half of a ``SiglipModel``: MAP pooling, no class token."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_json, vision_facts
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_clip import (
    BLOCK_PARTS,
    BLOCKS,
    DROPS,
    LAST_NORM,
    TEXT_HALF,
    in_vision_model,
)
from conversion.limits import not_square, unsupported_fields
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.table import TensorTable
from conversion.tensors.transforms import Divided, Leading
from vit_spec import Preprocessing, ViTConfig, VitportError
from vit_spec.preprocessing import HALF

TOWER = (
    Rule("pos_embed", "embeddings.position_embedding.weight", Leading(1)),
    *module("patch_embed.proj", "embeddings.patch_embedding"),
    *BLOCKS,
    *LAST_NORM,
)
POOLING = (
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
SIGNATURE = (
    "embeddings.patch_embedding.weight",
    "encoder.layers.0.layer_norm1.weight",
    ("head.probe", "post_layernorm.weight"),
)
"""Without the first of the last two, a model has no pooling: its features are the mean of the patches."""
CONVENTIONS = {"pos_embed": "patch", "pos_embed_resize": "torch-bicubic"}
PREPROCESSING = Preprocessing(mean=HALF, std=HALF, resize="squash")
PARTS = replace(BLOCK_PARTS, norm=("post_layernorm",))
CONFIG_JSON = {"num_attention_heads": 12, "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"}
"""Defaults of transformers' SiglipVisionConfig."""
DEFAULTS = {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    return vision_facts(config_json, DEFAULTS)


def check_head(table: TensorTable, config_json: Mapping[str, Any]) -> dict[str, str]:
    """Nothing to set aside: refuses a file that has lost its pooling.

    Raises:
        VitportError: unless ``vision_use_head`` says that there is none, as in models that other models read.
    """
    uses = config_json.get("vision_config", config_json).get("vision_use_head", True) if config_json else True
    if uses and "head.probe" not in table:
        raise VitportError(
            "The file has no head.probe, with which SigLIP pools, and no config.json beside it says that this is so "
            "(vision_use_head=false): the file is incomplete, so fetch or write it again."
        )
    return {}


def vision_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of SiglipVisionConfig that change results."""
    return {
        **model_json(checkpoint, fields=("attention_dropout",)),
        "intermediate_size": checkpoint.config.hidden_dim,
        "vision_use_head": checkpoint.config.pool == "map",
    }


def unsupported_by_siglip(config: ViTConfig, pool: str) -> list[str]:
    """What SigLIP's towers cannot hold; their position table has a row for each patch and no other."""
    prefixless = ("patch", "prefix", "all")  # the same where there is no class token and no register
    complaints = unsupported_fields(
        config, activation=ACTIVATIONS, class_token=(False,), pool=(pool,), pos_embed=prefixless
    )
    return complaints + not_square(config)


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        **folder_json(checkpoint, model_type="siglip_vision_model", architecture="SiglipVisionModel"),
        **vision_json(checkpoint),
    }


def cannot_hold(config: ViTConfig) -> list[str]:
    """After the MAP pooling there is no place for a head."""
    return unsupported_by_siglip(config, "map") + ([f"num_classes={config.num_classes}"] if config.num_classes else [])


SECOND_READING = SecondReading(
    names=replace(
        PARTS,
        pool_latent=("head.probe",),
        pool_qkv=("head.attention.in_proj",),
        pool_out=("head.attention.out_proj",),
        pool_norm=("head.layernorm",),
        pool_first=("head.mlp.fc1",),
        pool_second=("head.mlp.fc2",),
    ),
    pool_where={"head.probe": "map"},
    config_json=CONFIG_JSON,
)

FORMAT = Format(
    name="huggingface-siglip",
    summary="Hugging Face SigLIP folder, vision half",
    names=Rules((*TOWER, *POOLING)),
    signature=SIGNATURE,
    group="huggingface",
    classes={"siglip": ("SiglipModel",), "siglip_vision_model": ("SiglipVisionModel",)},
    base="vision_model.",
    set_aside=TEXT_HALF,
    ignored_if=check_head,
    classifier_pool="avg",
    conventions=CONVENTIONS,
    facts=facts,
    preprocessing=PREPROCESSING,
    drops=DROPS,
    writer=huggingface_folder.writer(_config_json, place=in_vision_model),
    cannot_hold=cannot_hold,
    second_reading=SECOND_READING,
)
