"""Hugging Face ``DeiTForImageClassificationWithTeacher`` (both heads) and ``DeiTModel`` without its pooler."""

from conversion.format import Format
from conversion.formats.huggingface_vit import CONVENTIONS, EMBEDDINGS, IN_MEMORY, MASK_TOKEN, ON_DISK
from conversion.huggingface_config import model_facts
from conversion.rules import Rule, Rules, module
from vit_spec import Preprocessing

FORMAT = Format(
    name="huggingface-deit",
    summary="Hugging Face DeiT folder with the heads of class and distillation token",
    names=Rules((
        Rule("dist_token", "embeddings.distillation_token"),
        *EMBEDDINGS, *ON_DISK, *IN_MEMORY,
        *module("head", "cls_classifier"),
        *module("head_dist", "distillation_classifier"),
    )),
    signature=("embeddings.distillation_token", "distillation_classifier.weight", "layernorm.weight"),
    base="deit.",
    set_aside=MASK_TOKEN,
    conventions=CONVENTIONS,
    facts=model_facts,
    preprocessing=Preprocessing(),
)  # fmt: skip
