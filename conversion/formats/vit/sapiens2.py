"""facebookresearch/sapiens2's names, which transformers' ``Sapiens2Model`` keeps on disk: read from a file or a folder,
written as a folder of transformers. Its names in memory are read too."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import folder_json, model_facts, model_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit import mask_token
from conversion.formats.vit.huggingface_dinov3 import check_biases
from conversion.formats.vit.huggingface_vit import MASK_TOKEN, READER_DEFAULTS
from conversion.formats.vit.shared_heads import remarks, sharing, with_all_heads, with_shared_heads
from conversion.limits import unsupported_fields
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, joined, module
from conversion.tensors.table import TensorTable
from vit_spec import Preprocessing, ViTConfig
from vit_spec.vit.rotary import DinoV3Rotary

_ATTENTION = "blocks.{i}.attn"
_RULES = (
    Rule("cls_token", "cls_token"),
    Rule("reg_token", "storage_tokens"),
    *module("patch_embed.proj", "patch_embed.projection"),
    Rule("blocks.{i}.norm1.weight", "blocks.{i}.ln1.weight"),
    *joined(f"{_ATTENTION}.qkv", *(f"{_ATTENTION}.w{part}" for part in "qkv")),
    *(Rule(f"{_ATTENTION}.{part}_norm.weight", f"{_ATTENTION}.{part}_norm.weight") for part in "qk"),
    *module(f"{_ATTENTION}.proj", f"{_ATTENTION}.proj"),
    Rule("blocks.{i}.ls1.gamma", f"{_ATTENTION}.gamma.weight"),
    Rule("blocks.{i}.norm2.weight", "blocks.{i}.ln2.weight"),
    *module("blocks.{i}.mlp.fc1", "blocks.{i}.ffn.w12"),
    *module("blocks.{i}.mlp.fc2", "blocks.{i}.ffn.w3"),
    Rule("norm.weight", "ln1.weight"),
)
_LAYER = "model.layer.{i}"
_IN_MEMORY = (
    Rule("cls_token", "embeddings.cls_token"),
    Rule("reg_token", "embeddings.register_tokens"),
    *module("patch_embed.proj", "embeddings.patch_embeddings"),
    Rule("blocks.{i}.norm1.weight", f"{_LAYER}.norm1.weight"),
    *joined(f"{_ATTENTION}.qkv", *(f"{_LAYER}.attention.{part}_proj" for part in "qkv")),
    *(Rule(f"{_ATTENTION}.{part}_norm.weight", f"{_LAYER}.attention.{part}_norm.weight") for part in "qk"),
    *module(f"{_ATTENTION}.proj", f"{_LAYER}.attention.o_proj"),
    Rule("blocks.{i}.ls1.gamma", f"{_LAYER}.layer_scale1.lambda1"),
    Rule("blocks.{i}.norm2.weight", f"{_LAYER}.norm2.weight"),
    *joined("blocks.{i}.mlp.fc1", f"{_LAYER}.mlp.gate_proj", f"{_LAYER}.mlp.up_proj"),
    *module("blocks.{i}.mlp.fc2", f"{_LAYER}.mlp.down_proj"),
    Rule("norm.weight", "norm.weight"),
)
"""Those of a ``state_dict`` that was dumped."""


class _Names(Rules):
    """Gives every head its own keys and values; writes the names on disk, with what heads still share once."""

    def __init__(self) -> None:
        super().__init__((*_RULES, *_IN_MEMORY))

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        return super().read(TensorTable(with_all_heads(table.tensors)))

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        return TensorTable(with_shared_heads(Rules(_RULES).write(table, config).tensors, config.head_dim))


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """As for every model, and theta. A model without gates has other names, and does not come here."""
    check_biases(config_json, query_bias=True, key_bias=True, value_bias=True, proj_bias=True, mlp_bias=True)
    told = {ours: config_json[theirs] for ours, theirs in (("norm_eps", "rms_norm_eps"),) if theirs in config_json}
    nested = config_json.get("rope_parameters") or {}
    theta = config_json.get("rope_theta", nested.get("rope_theta", DinoV3Rotary().theta))
    return model_facts(config_json) | told | {"rotary": DinoV3Rotary(theta=theta)}


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The whole description. Training in transformers turns positions at random by default; here it does not."""
    config = checkpoint.config
    stated = model_json(checkpoint, fields=("attention_dropout", "drop_path_rate", "num_register_tokens"))
    biases = ("query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias")
    return {
        **folder_json(checkpoint, model_type="sapiens2", architecture="Sapiens2Model"),
        **{"rms_norm_eps" if name == "layer_norm_eps" else name: value for name, value in stated.items()},
        **dict.fromkeys(biases, True),
        "intermediate_size": config.hidden_dim,
        "layerscale_value": config.layer_scale,
        "num_key_value_heads_per_layer": [config.num_heads // count for count in sharing(checkpoint)],
        "pos_embed_rescale": None,
        "rope_theta": config.rotary.theta,
        "use_gated_mlp": True,
        "use_mask_token": False,
        "use_qk_norm": True,
    }


def cannot_hold(config: ViTConfig) -> list[str]:
    """The class has no head, and computes its periods from theta."""
    rotary = config.rotary
    head = [f"num_classes={config.num_classes}"] if config.num_classes else []
    return head + unsupported_fields(
        config,
        activation=("silu",),
        mlp=("swiglu_packed",),
        norm=("rmsnorm",),
        norm_bias=(False,),
        qk_norm=(True,),
        layer_scale=(config.layer_scale,) if config.layer_scale is not None else (),
        scale_attention_only=(True,),
        register_tokens=(config.register_tokens,),
        pos_embed=("none",),
        rotary=() if rotary is None else (DinoV3Rotary(theta=getattr(rotary, "theta", 0.0)),),
    )


def _no_registers(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The class has registers even if there are none."""
    config, dtype = checkpoint.config, checkpoint.params.spec("cls_token")[1]
    return {} if config.register_tokens else {"storage_tokens": np.zeros((1, 0, config.embed_dim), dtype)}


FORMAT = Format(
    name="sapiens2",
    summary="Sapiens2's encoder by its authors' names, in a file or in a folder of transformers",
    names=_Names(),
    signature=(
        ("storage_tokens", "embeddings.register_tokens"),
        ("blocks.0.attn.wq.weight", "model.layer.0.attention.q_norm.weight"),
        ("blocks.0.ffn.w12.weight", "model.layer.0.mlp.gate_proj.weight"),
    ),
    before=("huggingface-dinov3",),
    group="huggingface",
    classes={"sapiens2": ("Sapiens2Model",)},
    set_aside=MASK_TOKEN | {
        "rope_embed.periods": "periods of rotary positions, which follow from theta",
        "mask_token": mask_token.UNREAD,
    },
    conventions={
        "pool": "token", "pos_embed": "none", "norm": "rmsnorm", "norm_eps": 1e-6, "activation": "silu",
        "rotary": DinoV3Rotary(), "scale_attention_only": True,
    },
    facts=facts,
    remarks=remarks,
    preprocessing=Preprocessing(crop_fraction=1.0, interpolation="bilinear", resize="squash"),
    reader_defaults=READER_DEFAULTS,
    drops=("cropping",),
    writer=huggingface_folder.writer(config_json, filler=_no_registers),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=PartNames(
            patches=("patch_embed.projection", "embeddings.patch_embeddings"),
            tokens=(("cls_token", "embeddings.cls_token"), ("storage_tokens", "embeddings.register_tokens")),
            block=("blocks.{i}", "model.layer.{i}"), norm1=("ln1", "norm1"), query=("attn.wq", "attention.q_proj"),
            key=("attn.wk", "attention.k_proj"), value=("attn.wv", "attention.v_proj"),
            out=("attn.proj", "attention.o_proj"), scale1=("attn.gamma.weight", "layer_scale1.lambda1"),
            norm2=("ln2", "norm2"), first=("ffn.w12",), gate=("mlp.gate_proj",), gated=("mlp.up_proj",),
            second=("ffn.w3", "mlp.down_proj"), norm=("ln1", "norm"),
            inside={"query": ("attn.q_norm", "attention.q_norm"), "key": ("attn.k_norm", "attention.k_norm")},
        ),
        pool="token", rotary=DinoV3Rotary(), plain=False,
    ),
)  # fmt: skip
