"""Hugging Face ``DeiTForImageClassificationWithTeacher``: a head for each of the two tokens."""

from dataclasses import replace

from conversion.config_json.huggingface import model_facts
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.vit.huggingface_vit import (
    CONFIG_JSON,
    CONVENTIONS,
    DROPS,
    EMBEDDINGS,
    IN_MEMORY,
    MASK_TOKEN,
    ON_DISK,
    PARTS,
    READER_DEFAULTS,
    describe,
    unsupported_by_vit,
)
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, module
from vit_spec import Preprocessing, ViTConfig

_ARCHITECTURE = "DeiTForImageClassificationWithTeacher"


def cannot_hold(config: ViTConfig) -> list[str]:
    """Without heads the file would be read as the one-head model, which pools in another way."""
    headless = [] if config.num_classes else ["num_classes=0"]
    return unsupported_by_vit(config, distilled=(True,), representation_size=(config.representation_size,)) + headless


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
    before=("huggingface-deit-one-head", "huggingface-vit"),
    group="huggingface",
    classes={"deit": ("DeiTModel", "DeiTForImageClassificationWithTeacher")},
    base="deit.",
    set_aside=MASK_TOKEN,
    conventions=CONVENTIONS,
    facts=model_facts,
    preprocessing=Preprocessing(),
    reader_defaults=READER_DEFAULTS,
    drops=DROPS,
    writer=huggingface_folder.writer(
        describe("deit", _ARCHITECTURE, _ARCHITECTURE),
        place=huggingface_folder.body_prefix("deit.", "cls_classifier.", "distillation_classifier."),
    ),
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(
            PARTS,
            tokens=(("embeddings.cls_token",), ("embeddings.distillation_token",)),
            head=("cls_classifier",), head_dist=("distillation_classifier",),
        ),
        pool="token", config_json=CONFIG_JSON,
    ),
)  # fmt: skip
