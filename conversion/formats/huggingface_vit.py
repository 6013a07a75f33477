"""Hugging Face ``ViTModel`` and ``ViTForImageClassification``: names on disk, and those in memory since v5.9."""

from conversion.format import Format
from conversion.huggingface_config import model_facts
from conversion.rules import Rule, Rules, joined, module

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
MASK_TOKEN = {"embeddings.mask_token": "stands in for hidden patches in masked pre-training, never in a forward pass"}


CONVENTIONS = {"pool": "token", "pos_embed": "prefix", "pos_embed_resize": "torch-bicubic"}
"""Classification from the class token; positions resized by torch's bicubic, without antialias."""

FORMAT = Format(
    name="huggingface-vit",
    summary="Hugging Face ViT folder",
    names=Rules((*EMBEDDINGS, *ON_DISK, *IN_MEMORY, *HEADS)),
    signature=("embeddings.patch_embeddings.projection.weight", "layernorm.weight"),
    base="vit.",
    set_aside=MASK_TOKEN,
    conventions=CONVENTIONS,
    facts=model_facts,
)
