"""Hugging Face ``Aimv2VisionModel``: AIMv2's encoder, with learned positions or with sines and cosines.

Its pooling attends with a learned query, which no layer projects, and has no MLP behind it: here that layer is the
identity and the MLP gives zeros. A model that was trained otherwise is not written.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import ACTIVATIONS, folder_json, model_facts, model_json
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_clip import PREPROCESSING
from conversion.limits import not_square, unsupported_fields
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, joined, module
from conversion.tensors.table import Tensor, TensorTable
from conversion.tensors.transforms import Leading
from vit_spec import UnstatedError, ViTConfig, VitportError

_LAYER = "encoder.layers.{i}"
_RULES = (
    *module("patch_embed.proj", "embeddings.patch_embed"),
    Rule("patch_embed.norm.weight", "embeddings.rms_norm.weight"),
    Rule("pos_embed", "embeddings.position_embedding.weight", Leading(1)),
    Rule("blocks.{i}.norm1.weight", f"{_LAYER}.rms_norm1.weight"),
    *joined("blocks.{i}.attn.qkv", *(f"{_LAYER}.attention.{part}_proj" for part in "qkv")),
    *module("blocks.{i}.attn.proj", f"{_LAYER}.attention.out_proj"),
    Rule("blocks.{i}.norm2.weight", f"{_LAYER}.rms_norm2.weight"),
    *module("blocks.{i}.mlp.fc1_g", f"{_LAYER}.ffn.gate_proj"),
    *module("blocks.{i}.mlp.fc1_x", f"{_LAYER}.ffn.up_proj"),
    *module("blocks.{i}.mlp.fc2", f"{_LAYER}.ffn.down_proj"),
    Rule("norm.weight", "rms_norm.weight"),
    Rule("attn_pool.latent", "head.cls_token"),
    *joined("attn_pool.kv", "head.k_proj", "head.v_proj"),
    *module("attn_pool.proj", "head.output_proj"),
)
_TEMPERATURE = 10000.0


def computed(table: TensorTable, size: tuple[int, int] | None) -> Mapping[str, Tensor]:
    """Positions where a file holds none, and what pooling has here beyond AIMv2's.

    Raises:
        UnstatedError: if nobody says the size of the images, which positions depend on.
    """
    shape, dtype = table.spec("patch_embed.proj.weight")
    found = {} if "pos_embed" in table else {"pos_embed": _positions(shape[0], shape[-1], dtype, size)}
    return found | (_pooling(table, shape[0], dtype) if "attn_pool.latent" in table else {})


def _positions(width: int, patch: int, dtype: np.dtype, size: tuple[int, int] | None) -> Tensor:
    """(1, patches, D): sines and cosines of columns, then of rows."""
    if size is None:
        raise UnstatedError(
            "AIMv2 at native resolution computes its positions from the size of the images, which the file does not "
            "say: state it (--image-size 224x336, facts={'image_size': …} or a ViTConfig).",
            ["image_size"],
        )
    if width % 4:
        raise VitportError(f"AIMv2 computes positions for widths that are multiples of 4, but the file's is {width}.")
    rows, columns = size[0] // patch, size[1] // patch

    def read() -> np.ndarray:
        frequencies = _TEMPERATURE ** -(np.arange(width // 4) / (width // 4))
        y, x = (places.reshape(-1, 1) * frequencies for places in np.mgrid[:rows, :columns].astype(float))
        return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)[None].astype(dtype)

    return Tensor((1, rows * columns, width), dtype, read)


def _pooling(table: TensorTable, width: int, dtype: np.dtype) -> dict[str, Tensor]:
    """The query's layer as the identity, and an MLP of one hidden unit that gives zeros."""
    made = {
        "q.weight": np.eye(width), "q.bias": np.zeros(width), "norm.weight": np.ones(width),
        "mlp.fc1.weight": np.zeros((1, width)), "mlp.fc1.bias": np.zeros(1),
        "mlp.fc2.weight": np.zeros((width, 1)), "mlp.fc2.bias": np.zeros(width),
    }  # fmt: skip
    if "blocks.0.attn.qkv.bias" not in table:
        made["kv.bias"] = np.zeros(2 * width)
    return {f"attn_pool.{name}": Tensor(x.shape, dtype, lambda x=x: x.astype(dtype)) for name, x in made.items()}


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """As for every model, with an epsilon of its own.

    Raises:
        VitportError: if attention has biases and the MLP none, or the other way round.
    """
    biased = {name: bool(config_json.get(name)) for name in ("qkv_bias", "mlp_bias")}
    if len(set(biased.values())) > 1:
        raise VitportError(
            f"config.json has {', '.join(f'{name}={value}' for name, value in biased.items())}: vitport has biases "
            "behind attention and in the MLP, or in neither. Save the model with zeros for the others."
        )
    return model_facts(config_json) | (
        {"norm_eps": config_json["rms_norm_eps"]} if "rms_norm_eps" in config_json else {}
    )


def check_head(table: TensorTable, config_json: Mapping[str, Any]) -> dict[str, str]:
    """Nothing to set aside: refuses a folder that has lost its pooling or its positions.

    Raises:
        VitportError: if config.json speaks of tensors that are not there.
    """
    needs = {"head.cls_token": config_json.get("use_head", True)}
    needs["embeddings.position_embedding.weight"] = not config_json.get("is_native", False)
    if missing := [name for name, there in needs.items() if config_json and there and name not in table]:
        raise VitportError(
            f"The folder has no {' and no '.join(missing)}, which its config.json speaks of (use_head, is_native): the "
            "file is incomplete, so fetch or write it again."
        )
    return {}


def shape_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Without a pooling of its own, a model's features are the mean of the patches."""
    return {"pool": "map" if "head.cls_token" in shapes else "avg"}


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The whole description; positions are always written as a table."""
    config = checkpoint.config
    stated = model_json(checkpoint, fields=("attention_dropout", "qkv_bias"))
    return {
        **folder_json(checkpoint, model_type="aimv2_vision_model", architecture="Aimv2VisionModel"),
        **{"rms_norm_eps" if name == "layer_norm_eps" else name: value for name, value in stated.items()},
        "intermediate_size": config.hidden_dim,
        "mlp_bias": config.proj_bias,
        "use_head": config.pool == "map",
        "is_native": False,
    }


def cannot_hold(config: ViTConfig) -> list[str]:
    """No head; the position table is as large as a square's."""
    head = [f"num_classes={config.num_classes}"] if config.num_classes else []
    return (
        head
        + unsupported_fields(
            config,
            activation=ACTIVATIONS,
            mlp=("swiglu",),
            norm=("rmsnorm",),
            norm_bias=(False,),
            patch_norm=(True,),
            class_token=(False,),
            pool=("avg", "map"),
            pos_embed=("patch", "prefix", "all"),
            qkv_bias=(True, False),
            proj_bias=(config.qkv_bias,),
            map_heads=(None, config.num_heads),
            map_hidden_dim=(config.map_hidden_dim,) if config.pool != "map" or config.pool_hidden_dim == 1 else (1,),
        )
        + not_square(config)
    )


FORMAT = Format(
    name="huggingface-aimv2",
    summary="Hugging Face AIMv2 folder, vision half",
    names=Rules(_RULES),
    signature=("embeddings.patch_embed.weight", "encoder.layers.0.rms_norm1.weight"),
    group="huggingface",
    classes={"aimv2_vision_model": ("Aimv2VisionModel",)},
    ignored_if=check_head,
    conventions={"pos_embed": "patch", "norm": "rmsnorm"},
    facts=facts,
    shape_facts=shape_facts,
    computed=computed,
    preprocessing=PREPROCESSING,
    reader_defaults={"activation": "silu"},
    drops=("cropping", "pos_embed_resize", "drop_rate", "drop_path_rate"),
    writer=huggingface_folder.writer(config_json),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=PartNames(
            patches=("embeddings.patch_embed",), patch_norm=("embeddings.rms_norm",),
            positions=("embeddings.position_embedding.weight",), block=("encoder.layers.{i}",), norm1=("rms_norm1",),
            query=("attention.q_proj",), key=("attention.k_proj",), value=("attention.v_proj",),
            out=("attention.out_proj",), norm2=("rms_norm2",), gate=("ffn.gate_proj",), gated=("ffn.up_proj",),
            second=("ffn.down_proj",), norm=("rms_norm",), pool_latent=("head.cls_token",), pool_key=("head.k_proj",),
            pool_value=("head.v_proj",), pool_out=("head.output_proj",),
        ),
        pool="avg", pool_where={"head.cls_token": "map"}, sincos="before the last", plain=False,
        config_json={"num_attention_heads": 8, "rms_norm_eps": 1e-5, "hidden_act": "silu"},
    ),
)  # fmt: skip
