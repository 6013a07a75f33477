"""Backbones of Microsoft's detectors and segmenters: its names, with a norm for every stage that a detector reads.

Windows never shrink and always shift; maps are padded.
"""

from conversion.containers import torch_file
from conversion.format import Format
from conversion.formats.swin import buffers
from conversion.formats.swin.agreement import one_window, stated_by, unlike_windows, unsupported
from conversion.formats.swin.microsoft import PARTS, RULES
from conversion.formats.swin.parts import BLOCK, CONVENTIONS, BufferedStageNorms, PositionMap
from conversion.second_reading.swin import SwinPartNames, SwinReading
from conversion.tensors.rules import Rule
from vit_spec import Preprocessing, SwinConfig


def cannot_hold(config: SwinConfig) -> list[str]:
    """One window, no head."""
    complaints = unsupported(
        config,
        None,
        num_classes=(0,),
        patch_norm=(True, False),
        absolute_pos_embed=(True, False),
        final_norm=(True, False),
        stage_norms=(config.stage_norms,) if config.stage_norms else (),
    )
    found = one_window(config, stated_by("never", "pad_roll"))
    return complaints + unlike_windows(config, found, "it states one square window, which never shrinks")


FORMAT = Format(
    name="microsoft-swin-detection",
    summary="the names of the backbones of Microsoft's Swin detectors",
    family="swin",
    names=BufferedStageNorms(
        (*RULES, Rule("absolute_pos_embed", "absolute_pos_embed", PositionMap())), "norm{s}", block=BLOCK
    ),
    signature=(
        "layers.0.blocks.0.attn.qkv.weight",
        "layers.0.downsample.reduction.weight",
        ("norm0.weight", "norm1.weight", "norm2.weight"),
    ),
    before=("microsoft-swin", "timm-swin", "timm"),
    set_aside=buffers.SET_ASIDE,
    buffer_facts=buffers.facts,
    conventions={**CONVENTIONS, "window_rule": "never", "pad_order": "pad_roll"},
    preprocessing=Preprocessing(),
    offset_resize="torch-bicubic",
    reader_defaults={"activation": "gelu"},
    writer=torch_file.write,
    drops=("image_size",),
    cannot_hold=cannot_hold,
    second_reading=SwinReading(names=SwinPartNames(**PARTS, stage_norm=("norm{s}",)), windows="never", pads="pad_roll"),
)
