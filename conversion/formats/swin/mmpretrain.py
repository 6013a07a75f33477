"""OpenMMLab's Swin, version 1: mmpretrain's classifiers, and the backbones of mmdetection and mmsegmentation.

Patch merging stands at the end of a stage, and its columns are laid out as ``torch.nn.Unfold`` does; its norm's too.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.containers import torch_file
from conversion.format import Format
from conversion.formats.swin import buffers
from conversion.formats.swin.agreement import one_window, stated_by, unlike_windows, unsupported
from conversion.formats.swin.parts import BLOCK, CONVENTIONS, BufferedStageNorms, PositionMap, Unfolded, merging, tables
from conversion.second_reading.swin import SwinPartNames, SwinReading
from conversion.tensors.rules import Rule, module
from conversion.tensors.table import TensorTable
from vit_spec import Preprocessing, SwinConfig
from vit_spec.swin.windows import windowings

THEIRS = "stages.{s}.blocks.{b}"
RULES = (
    Rule("absolute_pos_embed", "absolute_pos_embed", PositionMap()),
    *module("patch_embed.proj", "patch_embed.projection"),
    *module("patch_embed.norm", "patch_embed.norm"),
    *module(f"{BLOCK}.norm1", f"{THEIRS}.norm1"),
    *module(f"{BLOCK}.attn.qkv", f"{THEIRS}.attn.w_msa.qkv"),
    *module(f"{BLOCK}.attn.proj", f"{THEIRS}.attn.w_msa.proj"),
    *tables(f"{THEIRS}.attn.w_msa"),
    *module(f"{BLOCK}.norm2", f"{THEIRS}.norm2"),
    *module(f"{BLOCK}.mlp.fc1", f"{THEIRS}.ffn.layers.0.0"),
    *module(f"{BLOCK}.mlp.fc2", f"{THEIRS}.ffn.layers.1"),
    *module("head.fc", "head.fc"),
)
PARTS: dict[str, Any] = {
    "patches": ("patch_embed.projection",), "patch_norm": ("patch_embed.norm",), "positions": ("absolute_pos_embed",),
    "block": ("stages.{s}.blocks.{b}",), "stage_norm": ("norm{s}",), "head": ("head.fc",),
    "norm1": ("norm1",), "qkv": ("attn.w_msa.qkv",), "out": ("attn.w_msa.proj",), "norm2": ("norm2",),
    "first": ("ffn.layers.0.0",), "second": ("ffn.layers.1",),
}  # fmt: skip
_AFTER = "layers that a detector or segmenter computes from the maps of its backbone"
SET_ASIDE = buffers.SET_ASIDE | dict.fromkeys(
    ("neck.*", "rpn_head.*", "roi_head.*", "bbox_head.*", "mask_head.*", "decode_head.*", "auxiliary_head.*"), _AFTER
)


def is_detector(names: Mapping[str, Any]) -> bool:
    """Whether stages before the last have norms, as in backbones of detectors."""
    stages = {int(name.split(".")[1]) for name in names if name.startswith("stages.")}
    return any(f"norm{stage}.weight" in names for stage in stages - {max(stages, default=0)})


def window_rule(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """mmdetection's windows never shrink; mmpretrain's are not shifted where they are as large as the map."""
    return {"window_rule": "never" if is_detector(shapes) else "min"}


def unsupported_windows(config: SwinConfig) -> list[str]:
    """One square window; a classifier's is in no stage larger than the map."""
    rule = "never" if config.stage_norms else "min"
    found = one_window(config, stated_by(rule, "pad_roll"))
    smaller = any(
        min(it.map_size) < side for it, (side, _) in zip(windowings(config), config.window_sizes, strict=True)
    )
    if rule == "min" and smaller:
        found = None
    return unlike_windows(config, found, "it states one square window, and no map may be smaller")


def cannot_hold(config: SwinConfig) -> list[str]:
    """Version 1, with the erf GELU and the epsilon 1e-5."""
    complaints = unsupported(
        config, 1, patch_norm=(True, False), stage_norms=((),) if config.num_classes else (config.stage_norms,)
    )
    return complaints + unsupported_windows(config)


def write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    """A PyTorch file; everything but the head lies under ``backbone.``."""
    placed = table.renamed(lambda name: name if name.startswith("head.") else f"backbone.{name}")
    torch_file.write(path, placed, checkpoint, progress)


FORMAT = Format(
    name="mmpretrain-swin",
    summary="the names of mmpretrain's and mmdetection's Swin",
    family="swin",
    group="mmpretrain",
    names=BufferedStageNorms(
        (*RULES, *merging("stages.{s}.downsample", Unfolded(), Unfolded())),
        "norm{s}",
        block=THEIRS,
        attention="attn.w_msa",
    ),
    signature=("stages.0.blocks.0.attn.w_msa.relative_position_bias_table",),
    base="backbone.",
    set_aside=SET_ASIDE,
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
            **PARTS, merge_norm=("stages.{s-1}.downsample.norm",), merge=("stages.{s-1}.downsample.reduction",),
            table=("attn.w_msa.relative_position_bias_table",),
        ),
        windows="min",
        pads="pad_roll",
        never_where="earlier norms",
        merges="unfold",
    ),
)  # fmt: skip
