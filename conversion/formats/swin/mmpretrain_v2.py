"""mmpretrain's Swin v2. Patch merging stands at the beginning of a stage, and its norm comes after the reduction."""

from dataclasses import replace

from conversion.formats.swin import mmpretrain
from conversion.formats.swin.agreement import unsupported
from conversion.formats.swin.mmpretrain import PARTS, RULES, THEIRS, unsupported_windows
from conversion.formats.swin.parts import BufferedStageNorms, Unfolded, merging
from conversion.second_reading.swin import SwinPartNames, SwinReading
from vit_spec import SwinConfig


def cannot_hold(config: SwinConfig) -> list[str]:
    """Version 2, with the erf GELU and the epsilon 1e-5."""
    complaints = unsupported(
        config, 2, patch_norm=(True, False), stage_norms=((),) if config.num_classes else (config.stage_norms,)
    )
    return complaints + unsupported_windows(config)


_READING = mmpretrain.FORMAT.second_reading
assert isinstance(_READING, SwinReading)
FORMAT = replace(
    mmpretrain.FORMAT,
    name="mmpretrain-swinv2",
    summary="the names of mmpretrain's Swin v2",
    names=BufferedStageNorms(
        (*RULES, *merging("stages.{s+1}.downsample", reduction=Unfolded())),
        "norm{s}",
        block=THEIRS,
        attention="attn.w_msa",
    ),
    signature=("stages.0.blocks.0.attn.w_msa.logit_scale",),
    cannot_hold=cannot_hold,
    second_reading=replace(
        _READING,
        names=SwinPartNames(
            **PARTS, merge_norm=("stages.{s}.downsample.norm",), merge=("stages.{s}.downsample.reduction",),
            query_bias=("attn.w_msa.q_bias",), value_bias=("attn.w_msa.v_bias",),
            logit_scale=("attn.w_msa.logit_scale",), bias_first=("attn.w_msa.cpb_mlp.0",),
            bias_second=("attn.w_msa.cpb_mlp.2",), coordinates=("attn.w_msa.relative_coords_table",),
        ),
    ),
)  # fmt: skip
