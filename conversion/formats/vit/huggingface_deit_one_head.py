"""Hugging Face ``DeiTModel`` and ``DeiTForImageClassification``.

They have a distillation token that attends and is attended to, yet only the class token is read in the end. That is
a register token with a position of its own, and so it is read.
"""

from conversion.config_json.huggingface import identity_pooler, idle_pooler, model_facts
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_vit import (
    ASSUMES,
    CONVENTIONS,
    EMBEDDINGS,
    FORGETS,
    HEADS,
    IN_MEMORY,
    MASK_TOKEN,
    ON_DISK,
    beyond_vit,
    describe,
)
from conversion.tensors.rules import Rule, Rules
from vit_spec import Preprocessing, ViTConfig


def cannot_hold(config: ViTConfig) -> list[str]:
    """One register with a row in the position table, and nothing else beside the class token."""
    return beyond_vit(config, register_tokens=(1,), pos_embed=("all",))


FORMAT = Format(
    name="huggingface-deit-one-head",
    summary="Hugging Face DeiT folder that classifies from the class token alone",
    names=Rules((Rule("reg_token", "embeddings.distillation_token"), *EMBEDDINGS, *ON_DISK, *IN_MEMORY, *HEADS)),
    signature=("embeddings.distillation_token", "layernorm.weight"),
    base="deit.",
    set_aside=MASK_TOKEN,
    conventions={**CONVENTIONS, "pos_embed": "all"},  # the table has a row for the extra token too
    idle=idle_pooler,
    facts=model_facts,
    preprocessing=Preprocessing(),
    assumes=ASSUMES,
    forgets=FORGETS,
    writer=huggingface_folder.writer(
        describe("deit", "DeiTModel", "DeiTForImageClassification"),
        place=huggingface_folder.body_prefix("deit.", "classifier."),
        filler=identity_pooler,
    ),
    cannot_hold=cannot_hold,
)
