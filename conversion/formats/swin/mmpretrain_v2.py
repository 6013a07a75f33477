"""mmpretrain's Swin v2. Patch merging stands at the beginning of a stage, and its norm comes after the reduction."""

from conversion.format import Format
from conversion.formats.swin import buffers
from conversion.formats.swin.agreement import unsupported
from conversion.formats.swin.mmpretrain import PARTS, RULES, unsupported_windows, window_rule, write
from conversion.formats.swin.parts import CONVENTIONS, StageNorms, Unfolded, merging
from conversion.second_reading_swin import SwinPartNames, SwinReading
from vit_spec import Preprocessing, SwinConfig


def cannot_hold(config: SwinConfig) -> list[str]:
    """Version 2, with the erf GELU and the epsilon 1e-5."""
    complaints = unsupported(
        config, 2, patch_norm=(True, False), stage_norms=((),) if config.num_classes else (config.stage_norms,)
    )
    return complaints + unsupported_windows(config)


FORMAT = Format(
    name="mmpretrain-swinv2",
    summary="the names of mmpretrain's Swin v2",
    family="swin",
    group="mmpretrain",
    names=StageNorms((*RULES, *merging("stages.{s+1}.downsample", reduction=Unfolded())), "norm{s}"),
    signature=("stages.0.blocks.0.attn.w_msa.logit_scale",),
    base="backbone.",
    set_aside=buffers.SET_ASIDE,
    buffer_facts=buffers.facts,
    shape_facts=window_rule,
    conventions={**CONVENTIONS, "pad_order": "pad_roll"},
    preprocessing=Preprocessing(),
    offset_resize="geometric-cubic",
    reader_defaults={"activation": "gelu"},
    writer=write,
    cannot_hold=cannot_hold,
    second_reading=SwinReading(
        names=SwinPartNames(
            **PARTS, merge_norm=("stages.{s}.downsample.norm",), merge=("stages.{s}.downsample.reduction",),
            query_bias=("attn.w_msa.q_bias",), value_bias=("attn.w_msa.v_bias",),
            logit_scale=("attn.w_msa.logit_scale",), bias_first=("attn.w_msa.cpb_mlp.0",),
            bias_second=("attn.w_msa.cpb_mlp.2",), coordinates=("attn.w_msa.relative_coords_table",),
        ),
        windows="min",
        pads="pad_roll",
        never_where=("norm0.", "norm1.", "norm2."),
        merges="unfold",
    ),
)  # fmt: skip
