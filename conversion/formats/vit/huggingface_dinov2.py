"""Hugging Face ``Dinov2Model``, ``Dinov2WithRegistersModel`` and their classifiers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.capacity import beyond, not_square
from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_facts, model_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_vit import ASSUMES, CONVENTIONS, EMBEDDINGS, MASK_TOKEN
from conversion.tensors.rules import Rule, Rules, joined, module
from conversion.tensors.table import TensorTable
from vit_spec import Preprocessing, ViTConfig

_ATTENTION = (
    *joined(
        "blocks.{i}.attn.qkv",
        *(f"encoder.layer.{{i}}.attention.attention.{part}" for part in ("query", "key", "value")),
    ),
    *module("blocks.{i}.attn.proj", "encoder.layer.{i}.attention.output.dense"),
)
_SINCE_V5_9 = (
    *joined("blocks.{i}.attn.qkv", *(f"encoder.layer.{{i}}.attention.{part}_proj" for part in "qkv")),
    *module("blocks.{i}.attn.proj", "encoder.layer.{i}.attention.o_proj"),
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
    *_ATTENTION,
    Rule("blocks.{i}.ls1.gamma", "encoder.layer.{i}.layer_scale1.lambda1"),
    *module("blocks.{i}.norm2", "encoder.layer.{i}.norm2"),
    Rule("blocks.{i}.ls2.gamma", "encoder.layer.{i}.layer_scale2.lambda1"),
)


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """As for every model, but SwiGLU means SiLU whatever ``hidden_act`` says."""
    known = model_facts(config_json)
    if config_json.get("use_swiglu_ffn"):
        known["activation"] = "silu"
    return known


def shape_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The classes with registers antialias where those without do not."""
    registers = "embeddings.register_tokens" in shapes
    return {"pos_embed_resize": "torch-bicubic-antialias"} if registers else {}


_OUTSIDE_BLOCKS = (
    *EMBEDDINGS,
    Rule("reg_token", "embeddings.register_tokens"),
    *module("norm", "layernorm"),
    *module("head", "classifier"),
)


class _Names(Rules):
    """Reads every name that a Dinov2 file was ever written with; writes those on disk."""

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        mlp = _PACKED_MLP if config.mlp == "swiglu_packed" else _PLAIN_MLP
        return Rules((*_OUTSIDE_BLOCKS, *_BLOCK, *mlp)).write(table, config)


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """``mlp_ratio`` is a whole number there, and a SwiGLU's width is two thirds of it, rounded up to eights."""
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


def cannot_hold(config: ViTConfig) -> list[str]:
    """The classifier reads class token and patch mean; DINOv2 resizes its table for every picture but a square."""
    complaints = beyond(
        config,
        activation=("silu",) if config.mlp == "swiglu_packed" else ACTIVATIONS,
        mlp=("plain", "swiglu_packed"),
        qkv_bias=(True, False),
        layer_scale=() if config.layer_scale is None else (config.layer_scale,),
        register_tokens=(config.register_tokens,),
        pool=("token_avg",) if config.num_classes else ("token",),
    )
    if _mlp_ratio(config) is None:
        complaints.append(f"an MLP of width {config.hidden_dim}, which no whole mlp_ratio of {config.embed_dim} gives")
    return complaints + not_square(config)


def _place(name: str, checkpoint: Checkpoint) -> str:
    prefix = "dinov2_with_registers." if checkpoint.config.register_tokens else "dinov2."
    return huggingface_folder.body_prefix(prefix, "classifier.")(name, checkpoint)


def _mask_token(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    dtype = checkpoint.params.spec("cls_token")[1]
    return {"embeddings.mask_token": np.zeros((1, checkpoint.config.embed_dim), dtype)}


FORMAT = Format(
    name="huggingface-dinov2",
    summary="Hugging Face DINOv2 folder, with or without registers",
    names=_Names((*_OUTSIDE_BLOCKS, *_BLOCK, *_PLAIN_MLP, *_PACKED_MLP, *_SINCE_V5_9)),
    signature=("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.layer_scale1.lambda1"),
    base=("dinov2.", "dinov2_with_registers."),
    set_aside=MASK_TOKEN,
    conventions=CONVENTIONS,
    facts=facts,
    shape_facts=shape_facts,
    preprocessing=Preprocessing(crop_fraction=1.0),
    assumes=ASSUMES,
    forgets=("pos_embed_resize",),
    writer=huggingface_folder.writer(
        config_json, place=_place, filler=_mask_token
    ),
    cannot_hold=cannot_hold,
)  # fmt: skip
