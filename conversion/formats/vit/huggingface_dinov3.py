"""Hugging Face ``DINOv3ViTModel``: names on disk, and names in memory since v5.4."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_facts, model_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit import mask_token
from conversion.formats.vit.huggingface_vit import MASK_TOKEN, READER_DEFAULTS
from conversion.limits import unsupported_fields
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, joined, module
from conversion.tensors.table import TensorTable
from vit_spec import Preprocessing, ViTConfig, VitportError
from vit_spec.vit.rotary import DinoV3Rotary

_OUTSIDE = (
    Rule("cls_token", "embeddings.cls_token"),
    Rule("reg_token", "embeddings.register_tokens"),
    *module("patch_embed.proj", "embeddings.patch_embeddings"),
    *module("norm", "norm"),
)


def _block(layer: str, *, gated: bool, key_bias: bool) -> tuple[Rule, ...]:
    """Rules of a block: ``up_proj`` is the first layer of a plain MLP, and the value of a gated one."""
    weight, bias = joined("blocks.{i}.attn.qkv", *(f"{layer}.attention.{part}_proj" for part in "qkv"))
    apart = tuple(Rule(f"blocks.{{i}}.attn.{part}_bias", f"{layer}.attention.{part}_proj.bias") for part in "qv")
    first = (
        (
            *module("blocks.{i}.mlp.fc1_g", f"{layer}.mlp.gate_proj"),
            *module("blocks.{i}.mlp.fc1_x", f"{layer}.mlp.up_proj"),
        )
        if gated
        else module("blocks.{i}.mlp.fc1", f"{layer}.mlp.up_proj")
    )
    return (
        *module("blocks.{i}.norm1", f"{layer}.norm1"),
        weight,
        *((bias,) if key_bias else apart),
        *module("blocks.{i}.attn.proj", f"{layer}.attention.o_proj"),
        Rule("blocks.{i}.ls1.gamma", f"{layer}.layer_scale1.lambda1"),
        *module("blocks.{i}.norm2", f"{layer}.norm2"),
        *first,
        *module("blocks.{i}.mlp.fc2", f"{layer}.mlp.down_proj"),
        Rule("blocks.{i}.ls2.gamma", f"{layer}.layer_scale2.lambda1"),
    )


class _Names(Rules):
    """Reads the names on disk and those in memory; writes those on disk."""

    def __init__(self) -> None:
        super().__init__((*_OUTSIDE, *_block("layer.{i}", gated=False, key_bias=True),
                          *_block("layer.{i}", gated=True, key_bias=False)))  # fmt: skip

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        options = {
            "gated": any(name.endswith(".mlp.gate_proj.weight") for name in table),
            "key_bias": any(name.endswith(".attention.k_proj.bias") for name in table),
        }
        blocks = (rule for layer in ("layer.{i}", "model.layer.{i}") for rule in _block(layer, **options))
        return Rules((*_OUTSIDE, *blocks)).read(table)

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        block = _block("layer.{i}", gated=config.mlp == "swiglu", key_bias=not config.qv_bias)
        return Rules((*_OUTSIDE, *block)).write(table, config)


def check_biases(config_json: Mapping[str, Any], **defaults: bool) -> None:
    """Refuse biases on some layers that a model has on all or none of.

    Args:
        defaults: the class's own, of ``query_bias``, ``key_bias``, ``value_bias``, ``proj_bias`` and ``mlp_bias``.

    Raises:
        VitportError: with the keys of config.json that say so.
    """
    said = {name: bool(config_json.get(name, default)) for name, default in defaults.items()}
    query, key, value, out, mlp = said.values()
    if query is value and out is mlp and (query or not key):
        return
    told = ", ".join(f"{name}={value}" for name, value in said.items())
    raise VitportError(
        f"config.json has {told}: vitport reads biases of queries, keys and values, of queries and values, or of none "
        "of them, and of the layers behind attention and in the MLP, or of neither. Save the model with zeros for the "
        "others."
    )


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """As for every model, and theta, which newer files nest."""
    nested = config_json.get("rope_parameters") or {}
    theta = config_json.get("rope_theta", nested.get("rope_theta", DinoV3Rotary().theta))
    return model_facts(config_json) | {"rotary": DinoV3Rotary(theta=theta)}


def unsupported_dinov3(config: ViTConfig, **allowed: tuple[Any, ...]) -> list[str]:
    """What no format of DINOv3 holds: another pooling among it, as timm's names for it have the mean of the patches.

    Args:
        allowed: what the format holds beside this, as :func:`~conversion.limits.unsupported_fields` takes it.
    """
    told = f"pool={config.pool!r} (its readers give the class token: state that, pool='token', if features may be it)"
    return ([] if config.pool == "token" else [told]) + unsupported_fields(
        config,
        pool=(config.pool,),
        mlp=("plain", "swiglu"),
        qkv_bias=(True, False),
        qv_bias=(True, False),
        proj_bias=(True, False),
        layer_scale=(config.layer_scale,) if config.layer_scale is not None else (),
        register_tokens=(config.register_tokens,),
        pos_embed=("none",),
        **allowed,
    )


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Training in transformers turns positions at random by default; a model in evaluation mode does not."""
    config = checkpoint.config
    biased = config.qkv_bias or config.qv_bias
    return {
        **folder_json(checkpoint, model_type="dinov3_vit", architecture="DINOv3ViTModel"),
        **model_json(
            checkpoint, fields=("attention_dropout", "drop_path_rate", "layerscale_value", "num_register_tokens")
        ),
        "intermediate_size": config.hidden_dim,
        "use_gated_mlp": config.mlp == "swiglu",
        "query_bias": biased, "key_bias": config.qkv_bias, "value_bias": biased,
        "proj_bias": config.proj_bias, "mlp_bias": config.proj_bias,
        "rope_theta": config.rotary.theta,
    }  # fmt: skip


def cannot_hold(config: ViTConfig) -> list[str]:
    """The class has no head, and computes its periods from theta."""
    rotary = config.rotary
    held = (DinoV3Rotary(theta=rotary.theta),) if rotary is not None else ()
    head = [f"num_classes={config.num_classes}"] if config.num_classes else []
    return unsupported_dinov3(config, activation=ACTIVATIONS, rotary=held) + head


def _filler(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The class has a mask token, and registers even if there are none."""
    config = checkpoint.config
    found = {"embeddings.mask_token": mask_token.blank(checkpoint.params, config)[None]}
    if not config.register_tokens:
        found["embeddings.register_tokens"] = np.zeros((1, 0, config.embed_dim), found["embeddings.mask_token"].dtype)
    return found


def _no_registers(table: TensorTable, config: Mapping[str, Any]) -> dict[str, str]:
    if config:  # before its biases are joined, which would only say that one is missing
        check_biases(config, query_bias=True, key_bias=False, value_bias=True, proj_bias=True, mlp_bias=True)
    shape = table.shapes.get("embeddings.register_tokens", (1,))
    return {} if all(shape) else {"embeddings.register_tokens": "it holds no tokens"}


FORMAT = Format(
    name="huggingface-dinov3",
    summary="Hugging Face DINOv3 folder",
    names=_Names(),
    signature=(
        "embeddings.patch_embeddings.weight",
        ("layer.0.layer_scale1.lambda1", "model.layer.0.layer_scale1.lambda1"),
    ),
    group="huggingface",
    classes={"dinov3_vit": ("DINOv3ViTModel", "DINOv3ViTBackbone")},
    set_aside=MASK_TOKEN,
    ignored_if=_no_registers,
    classifier_pool="token_avg",
    conventions={"pool": "token", "pos_embed": "none"},
    facts=facts,
    preprocessing=Preprocessing(crop_fraction=1.0),
    reader_defaults=READER_DEFAULTS,
    drops=("cropping",),
    writer=huggingface_folder.writer(config_json, filler=_filler),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=PartNames(
            patches=("embeddings.patch_embeddings",),
            tokens=(("embeddings.cls_token",), ("embeddings.register_tokens",)),
            block=("layer.{i}", "model.layer.{i}"), norm1=("norm1",), query=("attention.q_proj",),
            key=("attention.k_proj",), value=("attention.v_proj",), out=("attention.o_proj",),
            scale1=("layer_scale1.lambda1",), norm2=("norm2",), gate=("mlp.gate_proj",), gated=("mlp.up_proj",),
            first=("mlp.up_proj",), second=("mlp.down_proj",), scale2=("layer_scale2.lambda1",), norm=("norm",),
        ),
        pool="token",
        rotary=DinoV3Rotary(),
        config_json={"num_attention_heads": 6, "layer_norm_eps": 1e-5, "hidden_act": "gelu", "rope_theta": 100.0},
    ),
)  # fmt: skip
