"""Hugging Face ``InternVLVisionModel``: InternViT, the vision tower of InternVL, without what joins it to a language
model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_facts, model_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_vit import EMBEDDINGS, MASK_TOKEN, PARTS, READER_DEFAULTS
from conversion.limits import not_square, unsupported_fields
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, joined, module
from vit_spec import Preprocessing, ViTConfig, VitportError

_LAYER = "encoder.layer.{i}"
_RULES = (
    *EMBEDDINGS,
    *module("blocks.{i}.norm1", f"{_LAYER}.layernorm_before"),
    *joined("blocks.{i}.attn.qkv", *(f"{_LAYER}.attention.{part}_proj" for part in "qkv")),
    *module("blocks.{i}.attn.proj", f"{_LAYER}.attention.projection_layer"),
    Rule("blocks.{i}.ls1.gamma", f"{_LAYER}.lambda_1"),
    *module("blocks.{i}.norm2", f"{_LAYER}.layernorm_after"),
    *module("blocks.{i}.mlp.fc1", f"{_LAYER}.mlp.fc1"),
    *module("blocks.{i}.mlp.fc2", f"{_LAYER}.mlp.fc2"),
    Rule("blocks.{i}.ls2.gamma", f"{_LAYER}.lambda_2"),
    *module("norm", "layernorm"),
)


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """As for every model, and the kind of norm.

    Raises:
        VitportError: for norms that vitport does not have, as in the tower of 6 billion parameters.
    """
    if config_json.get("use_qk_norm"):
        raise VitportError(
            "config.json has use_qk_norm=true: this InternVL tower norms queries and keys over all heads at once, "
            "where vitport norms each head by itself. Towers of 300 million parameters have no such norm."
        )
    mean, rms = config_json.get("use_mean_pooling", True), config_json.get("norm_type") == "rms_norm"
    if rms and not mean:
        raise VitportError(
            "config.json has norm_type='rms_norm' and use_mean_pooling=false: this InternVL tower ends with a "
            "LayerNorm behind blocks with RMSNorm, where vitport has one kind of norm in a model."
        )
    known = model_facts(config_json) | {"norm": "rmsnorm" if rms else "layernorm"}
    named = (("attention_bias", "qkv_bias"), ("layer_scale_init_value", "layer_scale"))
    return known | {ours: config_json[theirs] for theirs, ours in named if theirs in config_json}


def shape_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """A last norm stands before the class token, none before the mean of the patches."""
    return {"pool": "token"} if "layernorm.weight" in shapes else {"pool": "avg", "final_norm": "none"}


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The whole description."""
    config = checkpoint.config
    return {
        **folder_json(checkpoint, model_type="internvl_vision", architecture="InternVLVisionModel"),
        **model_json(checkpoint, fields=("hidden_dropout_prob", "attention_dropout")),
        "image_size": list(config.image_size),
        "patch_size": [config.patch_size] * 2,
        "intermediate_size": config.hidden_dim,
        "attention_bias": config.qkv_bias,
        "layer_scale_init_value": config.layer_scale,
        "norm_type": "rms_norm" if config.norm == "rmsnorm" else "layer_norm",
        "use_absolute_position_embeddings": config.pos_embed != "none",
        "use_mask_token": False,
        "use_mean_pooling": config.pool == "avg",
        "use_qk_norm": False,
    }


def cannot_hold(config: ViTConfig) -> list[str]:
    """No head; a last norm beside the class token alone; another grid's table is resized for images that are not
    square."""
    mean = config.pool == "avg"
    rms = mean and config.norm == "rmsnorm"
    head = [f"num_classes={config.num_classes}"] if config.num_classes else []
    return (
        head
        + unsupported_fields(
            config,
            activation=ACTIVATIONS,
            qkv_bias=(True, False),
            layer_scale=(config.layer_scale,) if config.layer_scale is not None else (),
            pos_embed=("none", "prefix"),
            pool=("avg", "token"),
            final_norm=("none" if mean else "tokens",),
            norm=("layernorm", "rmsnorm") if mean else ("layernorm",),
            norm_bias=(not rms,),
        )
        + not_square(config)
    )


FORMAT = Format(
    name="huggingface-internvl",
    summary="Hugging Face InternVL folder, vision tower",
    names=Rules(_RULES),
    signature=(
        "embeddings.patch_embeddings.projection.weight",
        "encoder.layer.0.attention.projection_layer.weight",
    ),
    before=("huggingface-beit", "huggingface-vit"),
    group="huggingface",
    classes={"internvl_vision": ("InternVLVisionModel",)},
    set_aside=MASK_TOKEN,
    conventions={"pos_embed_resize": "torch-bicubic"},
    facts=facts,
    shape_facts=shape_facts,
    preprocessing=Preprocessing(resize="squash"),
    reader_defaults=READER_DEFAULTS,
    drops=("cropping", "pos_embed_resize", "drop_path_rate"),
    writer=huggingface_folder.writer(config_json),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(
            PARTS,
            block=("encoder.layer.{i}",), query=("attention.q_proj",), key=("attention.k_proj",),
            value=("attention.v_proj",), out=("attention.projection_layer",), scale1=("lambda_1",),
            scale2=("lambda_2",), first=("mlp.fc1",), second=("mlp.fc2",), pre_logits=(), head=(),
        ),
        pool="avg", pool_where={"layernorm.weight": "token"},
        config_json={"num_attention_heads": 16, "layer_norm_eps": 1e-6, "hidden_act": "gelu"},
    ),
)  # fmt: skip
