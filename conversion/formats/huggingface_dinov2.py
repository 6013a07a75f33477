"""Hugging Face ``Dinov2Model``, ``Dinov2WithRegistersModel`` and their classifiers."""

from collections.abc import Mapping
from typing import Any

from conversion.format import Format
from conversion.formats.huggingface_vit import CONVENTIONS, EMBEDDINGS, MASK_TOKEN
from conversion.huggingface_config import model_facts
from conversion.rules import Rule, Rules, joined, module
from vit_spec import Preprocessing

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
)
_BLOCK = (
    *module("blocks.{i}.norm1", "encoder.layer.{i}.norm1"),
    *_ATTENTION,
    Rule("blocks.{i}.ls1.gamma", "encoder.layer.{i}.layer_scale1.lambda1"),
    *module("blocks.{i}.norm2", "encoder.layer.{i}.norm2"),
    *module("blocks.{i}.mlp.fc1", "encoder.layer.{i}.mlp.fc1"),
    *module("blocks.{i}.mlp.fc2", "encoder.layer.{i}.mlp.fc2"),
    *module("blocks.{i}.mlp.fc1", "encoder.layer.{i}.mlp.weights_in"),
    *module("blocks.{i}.mlp.fc2", "encoder.layer.{i}.mlp.weights_out"),
    *joined("blocks.{i}.mlp.fc1", "encoder.layer.{i}.mlp.gate_proj", "encoder.layer.{i}.mlp.up_proj"),
    *module("blocks.{i}.mlp.fc2", "encoder.layer.{i}.mlp.down_proj"),
    Rule("blocks.{i}.ls2.gamma", "encoder.layer.{i}.layer_scale2.lambda1"),
)


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """As for every model, but SwiGLU means SiLU whatever ``hidden_act`` says, and registers mean antialiasing."""
    known = model_facts(config_json)
    if config_json.get("use_swiglu_ffn"):
        known["activation"] = "silu"
    if config_json.get("model_type") == "dinov2_with_registers":
        known["pos_embed_resize"] = "torch-bicubic-antialias"
    return known


FORMAT = Format(
    name="huggingface-dinov2",
    summary="Hugging Face DINOv2 folder, with or without registers",
    names=Rules((
        *EMBEDDINGS,
        Rule("reg_token", "embeddings.register_tokens"),
        *_BLOCK,
        *_SINCE_V5_9,
        *module("norm", "layernorm"),
        *module("head", "classifier"),
    )),
    signature=("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.layer_scale1.lambda1"),
    base="dinov2.",
    set_aside=MASK_TOKEN,
    conventions=CONVENTIONS,
    facts=facts,
    preprocessing=Preprocessing(crop_fraction=1.0),
)  # fmt: skip
