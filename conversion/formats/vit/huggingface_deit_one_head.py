"""Hugging Face ``DeiTModel`` and ``DeiTForImageClassification``.

Their distillation token takes part in attention, but only the class token is read at the end. That makes it a register
token with a position of its own, and this format reads it as one.
"""

from dataclasses import replace

from conversion.config_json.huggingface import identity_pooler, ignored_pooler, model_facts
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_vit import (
    CONFIG_JSON,
    CONVENTIONS,
    DROPS,
    EMBEDDINGS,
    HEADS,
    IN_MEMORY,
    ON_DISK,
    PARTS,
    PRE_TRAINING,
    READER_DEFAULTS,
    describe,
    unsupported_by_vit,
)
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules
from vit_spec import Preprocessing, ViTConfig


def cannot_hold(config: ViTConfig) -> list[str]:
    """Beside the class token it holds one register, with a row in the position table."""
    return unsupported_by_vit(config, register_tokens=(1,), pos_embed=("all",))


FORMAT = Format(
    name="huggingface-deit-one-head",
    summary="Hugging Face DeiT folder that classifies from the class token alone",
    names=Rules((Rule("reg_token", "embeddings.distillation_token"), *EMBEDDINGS, *ON_DISK, *IN_MEMORY, *HEADS)),
    signature=("embeddings.distillation_token", "layernorm.weight"),
    before=("huggingface-vit",),
    group="huggingface",
    classes={"deit": ("DeiTForImageClassification", "DeiTForMaskedImageModeling")},
    base="deit.",
    set_aside=PRE_TRAINING,
    conventions={**CONVENTIONS, "pos_embed": "all"},  # the table has a row for the extra token too
    ignored_if=ignored_pooler,
    facts=model_facts,
    preprocessing=Preprocessing(),
    reader_defaults=READER_DEFAULTS,
    drops=DROPS,
    writer=huggingface_folder.writer(
        describe("deit", "DeiTModel", "DeiTForImageClassification"),
        place=huggingface_folder.body_prefix("deit.", "classifier."),
        filler=identity_pooler,
    ),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(PARTS, tokens=(("embeddings.cls_token",), ("embeddings.distillation_token",))),
        pool="token",
        config_json=CONFIG_JSON,
    ),
)
