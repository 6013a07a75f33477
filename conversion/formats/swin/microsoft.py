"""microsoft/Swin-Transformer and timm before its version 0.9, and SimMIM's and MoBY's encoders: a PyTorch file.

Patch merging stands at the end of a stage. The code asserts that windows divide every map, so it never pads.
"""

from collections.abc import Iterator
from typing import Any

from conversion.containers import torch_file
from conversion.format import Format
from conversion.formats.swin import buffers
from conversion.formats.swin.agreement import one_window, stated_by, unlike_windows, unsupported
from conversion.formats.swin.buffers import Buffered
from conversion.formats.swin.parts import BLOCK, CONVENTIONS, MASK_TOKEN, MODULES, merging, pure, tables
from conversion.second_reading.swin import SwinPartNames, SwinReading
from conversion.tensors.rules import Rule, module
from vit_spec import Preprocessing, SwinConfig
from vit_spec.swin.windows import windowings

RULES = (
    *module("patch_embed.proj", "patch_embed.proj"),
    *module("patch_embed.norm", "patch_embed.norm"),
    *pure(BLOCK, *MODULES),
    *tables(f"{BLOCK}.attn"),
    *(Rule(f"{BLOCK}.attn.cpb_mlp.{leaf}", f"{BLOCK}.attn.rpe_mlp.{leaf}")  # early SimMIM
      for leaf in ("0.weight", "0.bias", "2.weight")),
    *merging("layers.{s}.downsample"),
)  # fmt: skip
PARTS: dict[str, Any] = {
    "patches": ("patch_embed.proj",), "patch_norm": ("patch_embed.norm",), "positions": ("absolute_pos_embed",),
    "block": ("layers.{s}.blocks.{b}",), "merge_norm": ("layers.{s-1}.downsample.norm",),
    "merge": ("layers.{s-1}.downsample.reduction",),
    "norm1": ("norm1",), "qkv": ("attn.qkv",), "query_bias": ("attn.q_bias",), "value_bias": ("attn.v_bias",),
    "out": ("attn.proj",), "table": ("attn.relative_position_bias_table",), "logit_scale": ("attn.logit_scale",),
    "bias_first": ("attn.cpb_mlp.0", "attn.rpe_mlp.0"), "bias_second": ("attn.cpb_mlp.2", "attn.rpe_mlp.2"),
    "coordinates": ("attn.relative_coords_table",), "norm2": ("norm2",), "first": ("mlp.fc1",), "second": ("mlp.fc2",),
}  # fmt: skip


def cannot_hold(config: SwinConfig) -> list[str]:
    """One window, which shrinks on both sides alike, and no padding."""
    complaints = unsupported(config, None, patch_norm=(True, False), absolute_pos_embed=(True, False))
    found = one_window(config, stated_by("min", config.pad_order))
    return complaints + unlike_windows(config, found, "it states one square window") + list(_padded(config))


def _padded(config: SwinConfig) -> Iterator[str]:
    if not config.whole_patches:
        height, width = config.image_size
        yield f"image_size={height}x{width}, which patches of {config.patch_size} do not fill"
    for stage, windowing in enumerate(windowings(config)):
        rows, columns = windowing.map_size
        if windowing.padded != windowing.map_size:
            yield f"padding: windows do not divide the {rows}x{columns} map of stage {stage}"
        elif stage < config.num_stages - 1 and (rows % 2 or columns % 2):
            yield f"an odd map of {rows}x{columns} before patch merging"


FORMAT = Format(
    name="microsoft-swin",
    summary="the names of microsoft/Swin-Transformer",
    family="swin",
    names=Buffered(
        (*RULES, Rule("absolute_pos_embed", "absolute_pos_embed"), *module("norm", "norm"), *module("head.fc", "head")),
        BLOCK,
        masks=True,
    ),
    signature=("layers.0.blocks.0.attn.qkv.weight", "layers.0.downsample.reduction.weight"),
    before=("timm-swin", "timm"),
    set_aside=buffers.SET_ASIDE | {"mask_token": MASK_TOKEN},
    buffer_facts=buffers.facts,
    conventions={**CONVENTIONS, "window_rule": "min", "pad_order": "pad_roll"},
    preprocessing=Preprocessing(),
    offset_resize="torch-bicubic",
    reader_defaults={"activation": "gelu"},
    writer=torch_file.write,
    cannot_hold=cannot_hold,
    second_reading=SwinReading(
        names=SwinPartNames(**PARTS, norm=("norm",), head=("head",)), windows="min", pads="pad_roll"
    ),
)
