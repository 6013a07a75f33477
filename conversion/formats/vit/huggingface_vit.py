"""Hugging Face ``ViTModel`` and ``ViTForImageClassification``: names on disk, and names in memory since v5.9."""

from collections.abc import Callable
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import (
    ACTIVATIONS,
    folder_json,
    identity_pooler,
    ignored_pooler,
    model_facts,
    model_json,
)
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit import mask_token
from conversion.limits import unsupported_fields
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, joined, module
from vit_spec import ViTConfig

EMBEDDINGS = (
    Rule("cls_token", "embeddings.cls_token"),
    Rule("pos_embed", "embeddings.position_embeddings"),
    *module("patch_embed.proj", "embeddings.patch_embeddings.projection"),
)
ATTENTION_ON_DISK = (
    *joined(
        "blocks.{i}.attn.qkv",
        *(f"encoder.layer.{{i}}.attention.attention.{part}" for part in ("query", "key", "value")),
    ),
    *module("blocks.{i}.attn.proj", "encoder.layer.{i}.attention.output.dense"),
)
ON_DISK = (
    *module("blocks.{i}.norm1", "encoder.layer.{i}.layernorm_before"),
    *ATTENTION_ON_DISK,
    *module("blocks.{i}.norm2", "encoder.layer.{i}.layernorm_after"),
    *module("blocks.{i}.mlp.fc1", "encoder.layer.{i}.intermediate.dense"),
    *module("blocks.{i}.mlp.fc2", "encoder.layer.{i}.output.dense"),
    *module("norm", "layernorm"),
)


def attention_in_memory(block: str) -> tuple[Rule, ...]:
    """Rules for the attention of a block as transformers names it since v5.9."""
    return (
        *joined("blocks.{i}.attn.qkv", *(f"{block}.attention.{part}_proj" for part in "qkv")),
        *module("blocks.{i}.attn.proj", f"{block}.attention.o_proj"),
    )


IN_MEMORY = (
    *module("blocks.{i}.norm1", "layers.{i}.layernorm_before"),
    *attention_in_memory("layers.{i}"),
    *module("blocks.{i}.norm2", "layers.{i}.layernorm_after"),
    *module("blocks.{i}.mlp.fc1", "layers.{i}.mlp.fc1"),
    *module("blocks.{i}.mlp.fc2", "layers.{i}.mlp.fc2"),
)
HEADS = (*module("pre_logits.fc", "pooler.dense"), *module("head", "classifier"))
MASK_TOKEN = {"embeddings.mask_token": mask_token.UNREAD}
PRE_TRAINING = MASK_TOKEN | {"decoder.*": "the decoder that paints hidden patches in masked pre-training"}

CONVENTIONS = {"pool": "token", "pos_embed": "prefix", "pos_embed_resize": "torch-bicubic"}
"""Classification from the class token; positions resized by torch's bicubic, without antialias."""
DROPS = ("cropping", "drop_path_rate", "pos_embed_resize")
READER_DEFAULTS = {"activation": "gelu"}
"""``hidden_act`` of every released model of these classes, and so what runs if config.json is lost."""
PARTS = PartNames(
    patches=("embeddings.patch_embeddings.projection",), tokens=(("embeddings.cls_token",),),
    positions=("embeddings.position_embeddings",), block=("encoder.layer.{i}", "layers.{i}"),
    norm1=("layernorm_before",), query=("attention.attention.query", "attention.q_proj"),
    key=("attention.attention.key", "attention.k_proj"), value=("attention.attention.value", "attention.v_proj"),
    out=("attention.output.dense", "attention.o_proj"), norm2=("layernorm_after",),
    first=("intermediate.dense", "mlp.fc1"), second=("output.dense", "mlp.fc2"),
    norm=("layernorm",), pre_logits=("pooler.dense",), head=("classifier",),
)  # fmt: skip
CONFIG_JSON = {"num_attention_heads": 12, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
"""Defaults of transformers' ViTConfig and DeiTConfig."""


def describe(model_type: str, features: str, classifier: str) -> Callable[[Checkpoint], dict[str, Any]]:
    """The config.json of models laid out as ViT is.

    Args:
        model_type: transformers' key of the model.
        features: the class that loads a model without a head.
        classifier: the class that loads one with a head.
    """

    def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
        config = checkpoint.config
        if not config.class_token:
            return _ijepa_json(checkpoint)
        architecture = classifier if config.num_classes else features
        tanh = config.num_classes or config.representation_size is not None
        return {
            **folder_json(checkpoint, model_type=model_type, architecture=architecture),
            **model_json(checkpoint, fields=("qkv_bias", "hidden_dropout_prob", "attention_probs_dropout_prob")),
            "intermediate_size": config.hidden_dim,
            "pooler_act": "tanh" if tanh else "linear",
            "pooler_output_size": config.representation_size or config.embed_dim,
        }

    return config_json


def _ijepa_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """I-JEPA is ViT without a class token, and without a pooler."""
    config = checkpoint.config
    architecture = "IJepaForImageClassification" if config.num_classes else "IJepaModel"
    return {
        **folder_json(checkpoint, model_type="ijepa", architecture=architecture),
        **model_json(checkpoint, fields=("qkv_bias", "hidden_dropout_prob", "attention_probs_dropout_prob")),
        "intermediate_size": config.hidden_dim,
    }


def unsupported_by_vit(config: ViTConfig, **allowed: tuple[Any, ...]) -> list[str]:
    """What models laid out as ViT is cannot hold; ``allowed`` are the fields in which they differ from ViT."""
    return unsupported_fields(
        config,
        **{
            "activation": ACTIVATIONS,
            "qkv_bias": (True, False),
            "representation_size": (None,) if config.num_classes else (config.representation_size,),
        }
        | allowed,
    )


def cannot_hold(config: ViTConfig) -> list[str]:
    """ViT reads the class token; I-JEPA, which has none, the mean of the patches."""
    if config.class_token:
        return unsupported_by_vit(config)
    return unsupported_by_vit(
        config, class_token=(False,), pool=("avg",), pos_embed=("patch", "prefix"), representation_size=(None,)
    )


def _place(name: str, checkpoint: Checkpoint) -> str:
    body = "vit." if checkpoint.config.class_token else "ijepa."
    return huggingface_folder.body_prefix(body, "classifier.")(name, checkpoint)


def _pooler(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return identity_pooler(checkpoint) if checkpoint.config.class_token else {}


FORMAT = Format(
    name="huggingface-vit",
    summary="Hugging Face ViT folder",
    names=Rules((*EMBEDDINGS, *ON_DISK, *IN_MEMORY, *HEADS)),
    signature=("embeddings.patch_embeddings.projection.weight", "layernorm.weight"),
    group="huggingface",
    classes={
        "vit": ("ViTModel", "ViTForImageClassification", "ViTForMaskedImageModeling"),
        "vit_mae": ("ViTMAEModel", "ViTMAEForPreTraining"),
        "vit_msn": ("ViTMSNModel", "ViTMSNForImageClassification"),
        "ijepa": ("IJepaModel", "IJepaForImageClassification"),
    },
    base=("vit.", "ijepa."),
    set_aside=PRE_TRAINING,
    conventions=CONVENTIONS,
    ignored_if=ignored_pooler,
    facts=model_facts,
    reader_defaults=READER_DEFAULTS,
    drops=DROPS,
    writer=huggingface_folder.writer(
        describe("vit", "ViTModel", "ViTForImageClassification"),
        place=_place,
        filler=_pooler,
    ),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=PARTS, pool="avg", pool_where={"embeddings.cls_token": "token"}, config_json=CONFIG_JSON
    ),
)
