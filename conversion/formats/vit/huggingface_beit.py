"""Hugging Face ``BeitModel``, ``BeitForImageClassification``, and Data2Vec's models for images, laid out alike."""

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
from conversion.tensors.table import TensorTable
from vit_spec import Preprocessing, ViTConfig, VitportError
from vit_spec.preprocessing import HALF

_BIASES = "relative_position_bias.relative_position_bias_table"
_SHARED = (f"encoder.{_BIASES}", f"shared_position_bias.{_BIASES.partition('.')[2]}")
_TABLES = (*_SHARED, f"encoder.layer.0.attention.attention.{_BIASES}", f"layers.0.{_BIASES}")
_OUTSIDE = (
    *EMBEDDINGS,
    *module("norm", "layernorm"),
    *module("fc_norm", "pooler.layernorm"),
    *module("head", "classifier"),
)
_TABLE = "blocks.{i}.attn.relative_position_bias_table"


def _attention(*parts: str) -> tuple[Rule, ...]:
    """Queries and values have biases, keys have none."""
    weight, _ = joined("blocks.{i}.attn.qkv", *parts)
    return weight, *(
        Rule(f"blocks.{{i}}.attn.{name}_bias", f"{part}.bias") for name, part in zip("qv", parts[::2], strict=True)
    )


def _block(layer: str) -> tuple[Rule, ...]:
    return (
        *module("blocks.{i}.norm1", f"{layer}.layernorm_before"),
        Rule("blocks.{i}.ls1.gamma", f"{layer}.lambda_1"),
        *module("blocks.{i}.norm2", f"{layer}.layernorm_after"),
        Rule("blocks.{i}.ls2.gamma", f"{layer}.lambda_2"),
    )


_LAYER, _IN_MEMORY = "encoder.layer.{i}", "layers.{i}"
_ON_DISK = (
    *_block(_LAYER),
    *_attention(*(f"{_LAYER}.attention.attention.{part}" for part in ("query", "key", "value"))),
    Rule(_TABLE, f"{_LAYER}.attention.attention.{_BIASES}"),
    *module("blocks.{i}.attn.proj", f"{_LAYER}.attention.output.dense"),
    *module("blocks.{i}.mlp.fc1", f"{_LAYER}.intermediate.dense"),
    *module("blocks.{i}.mlp.fc2", f"{_LAYER}.output.dense"),
)
_SINCE_V5 = (
    *_block(_IN_MEMORY),
    *_attention(*(f"{_IN_MEMORY}.attention.{part}_proj" for part in "qkv")),
    Rule(_TABLE, f"{_IN_MEMORY}.{_BIASES}"),
    *module("blocks.{i}.attn.proj", f"{_IN_MEMORY}.attention.o_proj"),
    *module("blocks.{i}.mlp.fc1", f"{_IN_MEMORY}.mlp.fc1"),
    *module("blocks.{i}.mlp.fc2", f"{_IN_MEMORY}.mlp.fc2"),
)


class _Names(Rules):
    """Reads biases that all blocks share as each block's own; writes the names on disk."""

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        tensors = dict(table.tensors)
        shared = next((tensors.pop(name) for name in _SHARED if name in tensors), None)
        canonical, unknown = super().read(TensorTable(tensors))
        if shared is None:
            return canonical, unknown
        blocks = {name.split(".")[1] for name in canonical if name.startswith("blocks.")}
        return TensorTable({**canonical.tensors, **{_TABLE.format(i=at): shared for at in blocks}}), unknown

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        return Rules((*_OUTSIDE, *_ON_DISK)).write(table, config)


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """As for every model; the mean of the patches is pooled unless the file says otherwise."""
    known = model_facts(config_json)
    height, width = known.get("image_size", (0, 0))
    if height != width and config_json.get("use_relative_position_bias"):
        raise VitportError(
            f"config.json has image_size={height}x{width}: transformers mixes up the biases by relative position of "
            "images that are not square, so nothing is known of such a model. Give the file that it was made from."
        )
    known |= {"pool": "avg" if config_json.get("use_mean_pooling", True) else "token"}
    scale = config_json.get("layer_scale_init_value", 0.1)
    return known | ({"layer_scale": scale} if scale > 0 else {})


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The whole description."""
    config = checkpoint.config
    return {
        **folder_json(
            checkpoint,
            model_type="beit",
            architecture="BeitForImageClassification" if config.num_classes else "BeitModel",
        ),
        **model_json(checkpoint, fields=("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")),
        "intermediate_size": config.hidden_dim,
        "layer_scale_init_value": 0.0 if config.layer_scale is None else config.layer_scale,
        "use_absolute_position_embeddings": config.pos_embed != "none",
        "use_relative_position_bias": config.relative_bias,
        "use_shared_relative_position_bias": False,
        "use_mean_pooling": config.pool == "avg",
        "use_mask_token": False,
    }


def cannot_hold(config: ViTConfig) -> list[str]:
    """A mean is normalised after pooling, the class token before it; grids must be square (see ``facts``). A model
    with nothing of BEiT is ViT's."""
    mean = config.pool == "avg"
    return unsupported_fields(
        config,
        activation=ACTIVATIONS,
        qkv_bias=(False,),
        qv_bias=(True,),
        relative_bias=(True, False),
        layer_scale=(config.layer_scale,) if config.layer_scale is not None or mean or config.relative_bias else (),
        pos_embed=("none", "prefix"),
        pool=("avg", "token"),
        final_norm=("pooled" if mean else "tokens",),
    ) + not_square(config)


FORMAT = Format(
    name="huggingface-beit",
    summary="Hugging Face BEiT folder",
    names=_Names((*_OUTSIDE, *_ON_DISK, *_SINCE_V5)),
    signature=(
        "embeddings.patch_embeddings.projection.weight",
        ("encoder.layer.0.lambda_1", "layers.0.lambda_1", "pooler.layernorm.weight", *_TABLES),
    ),
    before=("huggingface-vit",),
    group="huggingface",
    classes={
        "beit": ("BeitModel", "BeitForImageClassification", "BeitBackbone"),
        "data2vec-vision": ("Data2VecVisionModel", "Data2VecVisionForImageClassification"),
    },
    base=("beit.", "data2vec_vision."),
    set_aside=MASK_TOKEN
    | {"*relative_position_index": "rows of relative positions, which follow from the grid"},
    conventions={"pos_embed_resize": "torch-bicubic", "rotary": None},
    facts=facts,
    preprocessing=Preprocessing(mean=HALF, std=HALF, crop_fraction=1.0),
    reader_defaults=READER_DEFAULTS,
    drops=("cropping", "pos_embed_resize"),
    writer=huggingface_folder.writer(config_json, place=huggingface_folder.body_prefix("beit.", "classifier.")),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(
            PARTS,
            scale1=("lambda_1",), scale2=("lambda_2",), pre_logits=(), fc_norm=("pooler.layernorm",),
            inside={"offsets": (
                "attention.attention.relative_position_bias.relative_position_bias_table",
                "relative_position_bias.relative_position_bias_table",
            )},
            shared={"offsets": (
                "encoder.relative_position_bias.relative_position_bias_table",
                "shared_position_bias.relative_position_bias_table",
            )},
        ),
        pool="avg", pool_where={"layernorm.weight": "token"},
        config_json={"num_attention_heads": 12, "layer_norm_eps": 1e-12, "hidden_act": "gelu"},
    ),
)  # fmt: skip
