"""Hugging Face ``Tipsv2VisionModel``: DINOv2 with registers under Google's names on disk, and transformers' in memory.

The names are those of DINOv2 in Meta's files and in transformers: config.json alone tells them apart.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import folder_json, model_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit import mask_token
from conversion.formats.vit.huggingface_dinov2 import FORMAT as DINOV2
from conversion.formats.vit.huggingface_dinov2 import facts, unsupported_by_dinov2
from conversion.formats.vit.huggingface_vit import MASK_TOKEN, PARTS, READER_DEFAULTS
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.table import TensorTable
from vit_spec import Preprocessing, ViTConfig

_ALIKE = ("norm1", "attn.qkv", "attn.proj", "norm2")
_OUTSIDE = (
    Rule("cls_token", "cls_token"),
    Rule("reg_token", "register_tokens"),
    Rule("pos_embed", "pos_embed"),
    *module("patch_embed.proj", "patch_embed.proj"),
    *module("norm", "norm"),
)
_BLOCK = (
    *(rule for name in _ALIKE for rule in module(f"blocks.{{i}}.{name}", f"blocks.{{i}}.{name}")),
    *(Rule(f"blocks.{{i}}.{name}.gamma", f"blocks.{{i}}.{name}.gamma") for name in ("ls1", "ls2")),
)
_PLAIN_MLP = (
    *module("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.c_fc"),
    *module("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.c_proj"),
)
_PACKED_MLP = (
    *module("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.w12"),
    *module("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.w3"),
)
_IN_MEMORY = DINOV2.names.rules if isinstance(DINOV2.names, Rules) else ()


class _Names(Rules):
    """Reads the names on disk and those in memory; writes those on disk."""

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        mlp = _PACKED_MLP if config.mlp == "swiglu_packed" else _PLAIN_MLP
        return Rules((*_OUTSIDE, *_BLOCK, *mlp)).write(table, config)


def _mlp_ratio(config: ViTConfig) -> float:
    """What gives transformers the MLP's width, of which it takes the whole part."""
    hidden = config.hidden_dim * 3 // 2 if config.mlp == "swiglu_packed" else config.hidden_dim
    whole, rest = divmod(hidden, config.embed_dim)
    return (hidden + 0.5) / config.embed_dim if rest else whole


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The whole description."""
    config = checkpoint.config
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")
    return {
        **folder_json(checkpoint, model_type="tipsv2_vision_model", architecture="Tipsv2VisionModel"),
        **model_json(checkpoint, fields=(*rates, "qkv_bias", "layerscale_value", "num_register_tokens")),
        "mlp_ratio": _mlp_ratio(config),
        "use_swiglu_ffn": config.mlp == "swiglu_packed",
    }


def cannot_hold(config: ViTConfig) -> list[str]:
    """As for DINOv2, with any width of the MLP (a SwiGLU's is a multiple of 8), at least one register, and no head."""
    complaints = unsupported_by_dinov2(config)
    if config.mlp == "swiglu_packed" and config.hidden_dim % 8:
        complaints.append(f"an MLP of width {config.hidden_dim} (a SwiGLU's is a multiple of 8)")
    if not config.register_tokens:
        complaints.append("register_tokens=0")
    return complaints + ([f"num_classes={config.num_classes}"] if config.num_classes else [])


def _mask_token(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return {"mask_token": mask_token.blank(checkpoint.params, checkpoint.config)}


FORMAT = Format(
    name="huggingface-tipsv2",
    summary="Hugging Face TIPSv2 folder, vision half",
    names=_Names((*_OUTSIDE, *_BLOCK, *_PLAIN_MLP, *_PACKED_MLP, *_IN_MEMORY)),
    signature=(("blocks.0.ls1.gamma", "encoder.layer.0.layer_scale1.lambda1"),),
    by_class=True,
    group="huggingface",
    classes={"tipsv2_vision_model": ("Tipsv2VisionModel", "Tipsv2VisionBackbone")},
    set_aside=MASK_TOKEN | {"mask_token": mask_token.UNREAD},
    conventions={"pool": "token", "pos_embed": "prefix", "pos_embed_resize": "torch-bilinear-antialias"},
    facts=facts,
    preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear", resize="squash"),
    reader_defaults=READER_DEFAULTS,
    drops=("cropping", "pos_embed_resize"),
    writer=huggingface_folder.writer(config_json, filler=_mask_token),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(
            PARTS,
            patches=("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            tokens=(("cls_token", "embeddings.cls_token"), ("register_tokens", "embeddings.register_tokens")),
            positions=("pos_embed", "embeddings.position_embeddings"), block=("blocks.{i}", "encoder.layer.{i}"),
            norm1=("norm1",), qkv=("attn.qkv",), query=("attention.q_proj",), key=("attention.k_proj",),
            value=("attention.v_proj",), out=("attn.proj", "attention.o_proj"),
            scale1=("ls1.gamma", "layer_scale1.lambda1"), norm2=("norm2",), first=("mlp.c_fc", "mlp.w12", "mlp.fc1"),
            gate=("mlp.gate_proj",), gated=("mlp.up_proj",),
            second=("mlp.c_proj", "mlp.w3", "mlp.fc2", "mlp.down_proj"), scale2=("ls2.gamma", "layer_scale2.lambda1"),
            norm=("norm", "layernorm"), pre_logits=(), head=(),
        ),
        pool="token",
        config_json={"num_attention_heads": 12, "layer_norm_eps": 1e-6, "hidden_act": "gelu"},
    ),
)  # fmt: skip
