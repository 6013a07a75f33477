"""Hugging Face ``Dinov2Model``, ``Dinov2WithRegistersModel`` and their classifiers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_facts, model_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit import mask_token
from conversion.formats.vit.huggingface_vit import (
    ATTENTION_ON_DISK,
    CONVENTIONS,
    EMBEDDINGS,
    MASK_TOKEN,
    PARTS,
    READER_DEFAULTS,
    attention_in_memory,
)
from conversion.limits import not_square, unsupported_fields
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, joined, module
from conversion.tensors.table import TensorTable
from vit_spec import Preprocessing, ViTConfig

_SINCE_V5_9 = (
    *attention_in_memory("encoder.layer.{i}"),
    *joined("blocks.{i}.mlp.fc1", "encoder.layer.{i}.mlp.gate_proj", "encoder.layer.{i}.mlp.up_proj"),
    *module("blocks.{i}.mlp.fc2", "encoder.layer.{i}.mlp.down_proj"),
)
_PLAIN_MLP = (
    *module("blocks.{i}.mlp.fc1", "encoder.layer.{i}.mlp.fc1"),
    *module("blocks.{i}.mlp.fc2", "encoder.layer.{i}.mlp.fc2"),
)
_PACKED_MLP = (
    *module("blocks.{i}.mlp.fc1", "encoder.layer.{i}.mlp.weights_in"),
    *module("blocks.{i}.mlp.fc2", "encoder.layer.{i}.mlp.weights_out"),
)
_BLOCK = (
    *module("blocks.{i}.norm1", "encoder.layer.{i}.norm1"),
    *ATTENTION_ON_DISK,
    Rule("blocks.{i}.ls1.gamma", "encoder.layer.{i}.layer_scale1.lambda1"),
    *module("blocks.{i}.norm2", "encoder.layer.{i}.norm2"),
    Rule("blocks.{i}.ls2.gamma", "encoder.layer.{i}.layer_scale2.lambda1"),
)


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """As for every model, but a SwiGLU runs SiLU whatever ``hidden_act`` says."""
    known = model_facts(config_json)
    if config_json.get("use_swiglu_ffn"):
        known["activation"] = "silu"
    return known


def shape_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The classes with registers antialias when they resize positions; those without do not."""
    registers = "embeddings.register_tokens" in shapes
    return {"pos_embed_resize": "torch-bicubic-antialias"} if registers else {}


_OUTSIDE_BLOCKS = (
    *EMBEDDINGS,
    Rule("reg_token", "embeddings.register_tokens"),
    *module("norm", "layernorm"),
    *module("head", "classifier"),
)


class _Names(Rules):
    """Reads the names of every version of transformers; writes those that it writes to disk."""

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        mlp = _PACKED_MLP if config.mlp == "swiglu_packed" else _PLAIN_MLP
        return Rules((*_OUTSIDE_BLOCKS, *_BLOCK, *mlp)).write(table, config)


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """transformers takes a whole ``mlp_ratio``; a SwiGLU's width is two thirds of it, rounded up to a multiple of 8."""
    config = checkpoint.config
    kind = "Dinov2WithRegisters" if config.register_tokens else "Dinov2"
    registers = ("num_register_tokens",) if config.register_tokens else ()
    fields = ("qkv_bias", "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "layerscale_value")
    return {
        **folder_json(
            checkpoint,
            model_type="dinov2_with_registers" if config.register_tokens else "dinov2",
            architecture=f"{kind}ForImageClassification" if config.num_classes else f"{kind}Model",
        ),
        **model_json(checkpoint, fields=(*fields, *registers)),
        "mlp_ratio": _mlp_ratio(config),
        "use_swiglu_ffn": config.mlp == "swiglu_packed",
    }


def _mlp_ratio(config: ViTConfig) -> int | None:
    """The whole number that gives transformers the model's MLP width; ``None`` where none does."""

    def width(ratio: int) -> int:
        hidden = config.embed_dim * ratio
        return (int(hidden * 2 / 3) + 7) // 8 * 8 if config.mlp == "swiglu_packed" else hidden

    ratios = range(1, 2 + 2 * config.hidden_dim // config.embed_dim)
    return next((ratio for ratio in ratios if width(ratio) == config.hidden_dim), None)


def unsupported_by_dinov2(config: ViTConfig) -> list[str]:
    """All but the MLP's width: the table is resized for every image that is not square."""
    return unsupported_fields(
        config,
        activation=("silu",) if config.mlp == "swiglu_packed" else ACTIVATIONS,
        mlp=("plain", "swiglu_packed"),
        qkv_bias=(True, False),
        layer_scale=() if config.layer_scale is None else (config.layer_scale,),
        register_tokens=(config.register_tokens,),
        pool=("token_avg",) if config.num_classes else ("token",),
    ) + not_square(config)


def cannot_hold(config: ViTConfig) -> list[str]:
    """The classifier reads class token and patch mean."""
    complaints = unsupported_by_dinov2(config)
    if _mlp_ratio(config) is None:
        complaints.append(
            f"an MLP of width {config.hidden_dim} (no whole mlp_ratio of embed_dim={config.embed_dim} gives it)"
        )
    return complaints


def _place(name: str, checkpoint: Checkpoint) -> str:
    prefix = "dinov2_with_registers." if checkpoint.config.register_tokens else "dinov2."
    return huggingface_folder.body_prefix(prefix, "classifier.")(name, checkpoint)


def _mask_token(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return {"embeddings.mask_token": mask_token.blank(checkpoint.params, checkpoint.config)}


FORMAT = Format(
    name="huggingface-dinov2",
    summary="Hugging Face DINOv2 folder, with or without registers",
    names=_Names((*_OUTSIDE_BLOCKS, *_BLOCK, *_PLAIN_MLP, *_PACKED_MLP, *_SINCE_V5_9)),
    signature=("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.layer_scale1.lambda1"),
    before=("huggingface-internvl", "huggingface-vit"),
    group="huggingface",
    classes={
        "dinov2": ("Dinov2Model", "Dinov2ForImageClassification", "Dinov2Backbone"),
        "dinov2_with_registers": (
            "Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersBackbone",
        ),
    },
    base=("dinov2.", "dinov2_with_registers."),
    set_aside=MASK_TOKEN,
    classifier_pool="token_avg",
    conventions=CONVENTIONS,
    facts=facts,
    shape_facts=shape_facts,
    preprocessing=Preprocessing(crop_fraction=1.0),
    reader_defaults=READER_DEFAULTS,
    drops=("cropping", "pos_embed_resize"),
    writer=huggingface_folder.writer(config_json, place=_place, filler=_mask_token),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(
            PARTS,
            tokens=(("embeddings.cls_token",), ("embeddings.register_tokens",)), block=("encoder.layer.{i}",),
            norm1=("norm1",), scale1=("layer_scale1.lambda1",), norm2=("norm2",), first=("mlp.fc1", "mlp.weights_in"),
            gate=("mlp.gate_proj",), gated=("mlp.up_proj",),
            second=("mlp.fc2", "mlp.weights_out", "mlp.down_proj"), scale2=("layer_scale2.lambda1",), pre_logits=(),
        ),
        pool="token", pool_where={"classifier.weight": "token_avg"},
        config_json={"num_attention_heads": 12, "layer_norm_eps": 1e-6, "hidden_act": "gelu"},
    ),
)  # fmt: skip
