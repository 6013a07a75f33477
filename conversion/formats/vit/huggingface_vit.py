"""Hugging Face ``ViTModel`` and ``ViTForImageClassification``: names on disk, and those in memory since v5.9."""

from collections.abc import Callable
from typing import Any

from conversion.capacity import beyond
from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import (
    ACTIVATIONS,
    folder_json,
    identity_pooler,
    idle_pooler,
    model_facts,
    model_json,
)
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.tensors.rules import Rule, Rules, joined, module
from vit_spec import ViTConfig

EMBEDDINGS = (
    Rule("cls_token", "embeddings.cls_token"),
    Rule("pos_embed", "embeddings.position_embeddings"),
    *module("patch_embed.proj", "embeddings.patch_embeddings.projection"),
)
ON_DISK = (
    *module("blocks.{i}.norm1", "encoder.layer.{i}.layernorm_before"),
    *joined(
        "blocks.{i}.attn.qkv",
        *(f"encoder.layer.{{i}}.attention.attention.{part}" for part in ("query", "key", "value")),
    ),
    *module("blocks.{i}.attn.proj", "encoder.layer.{i}.attention.output.dense"),
    *module("blocks.{i}.norm2", "encoder.layer.{i}.layernorm_after"),
    *module("blocks.{i}.mlp.fc1", "encoder.layer.{i}.intermediate.dense"),
    *module("blocks.{i}.mlp.fc2", "encoder.layer.{i}.output.dense"),
    *module("norm", "layernorm"),
)
IN_MEMORY = (
    *module("blocks.{i}.norm1", "layers.{i}.layernorm_before"),
    *joined("blocks.{i}.attn.qkv", *(f"layers.{{i}}.attention.{part}_proj" for part in "qkv")),
    *module("blocks.{i}.attn.proj", "layers.{i}.attention.o_proj"),
    *module("blocks.{i}.norm2", "layers.{i}.layernorm_after"),
    *module("blocks.{i}.mlp.fc1", "layers.{i}.mlp.fc1"),
    *module("blocks.{i}.mlp.fc2", "layers.{i}.mlp.fc2"),
)
HEADS = (*module("pre_logits.fc", "pooler.dense"), *module("head", "classifier"))
MASK_TOKEN = {"embeddings.mask_token": "a stand-in for hidden patches in masked pre-training, in no forward pass"}

CONVENTIONS = {"pool": "token", "pos_embed": "prefix", "pos_embed_resize": "torch-bicubic"}
"""Classification from the class token; positions resized by torch's bicubic, without antialias."""
FORGETS = ("drop_path_rate", "pos_embed_resize")
ASSUMES = {"activation": "gelu"}
"""What ``hidden_act`` is in every released model of these classes, and so what is run where config.json is lost."""


def describe(model_type: str, features: str, classifier: str) -> Callable[[Checkpoint], dict[str, Any]]:
    """The config.json of the models that are laid out as ViT is: class names without and with a head."""

    def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
        config = checkpoint.config
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


def beyond_vit(config: ViTConfig, **allowed: tuple[Any, ...]) -> list[str]:
    """What ``cannot_hold`` of these models says; ``allowed`` are the fields in which they differ from ViT."""
    return beyond(
        config,
        **{
            "activation": ACTIVATIONS,
            "qkv_bias": (True, False),
            "representation_size": (None,) if config.num_classes else (config.representation_size,),
        }
        | allowed,
    )


FORMAT = Format(
    name="huggingface-vit",
    summary="Hugging Face ViT folder",
    names=Rules((*EMBEDDINGS, *ON_DISK, *IN_MEMORY, *HEADS)),
    signature=("embeddings.patch_embeddings.projection.weight", "layernorm.weight"),
    base="vit.",
    set_aside=MASK_TOKEN,
    conventions=CONVENTIONS,
    idle=idle_pooler,
    facts=model_facts,
    assumes=ASSUMES,
    forgets=FORGETS,
    writer=huggingface_folder.writer(
        describe("vit", "ViTModel", "ViTForImageClassification"),
        place=huggingface_folder.body_prefix("vit.", "classifier."),
        filler=identity_pooler,
    ),
    cannot_hold=beyond_vit,
)
