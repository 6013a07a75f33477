"""torchvision's ``swin_t``, ``swin_s`` and ``swin_b``: a state_dict in a PyTorch file."""

from typing import Any

from conversion.containers import torch_file
from conversion.format import Format
from conversion.formats.swin import buffers
from conversion.formats.swin.agreement import one_window, stated_by, unlike_windows, unsupported
from conversion.formats.swin.buffers import Buffered
from conversion.formats.swin.parts import CONVENTIONS, pure
from conversion.second_reading.swin import SwinPartNames, SwinReading
from conversion.tensors.rules import Rule, module
from vit_spec import Preprocessing, SwinConfig

BLOCK = "layers.{s}.blocks.{b}"
THEIRS = "features.{2s+1}.{b}"
RULES = (
    *module("patch_embed.proj", "features.0.0"),
    *module("patch_embed.norm", "features.0.2"),
    *pure(THEIRS, "norm1", "attn.proj", "norm2"),
    Rule(f"{BLOCK}.attn.qkv.weight", f"{THEIRS}.attn.qkv.weight"),
    *module(f"{BLOCK}.mlp.fc1", f"{THEIRS}.mlp.0"),
    *module(f"{BLOCK}.mlp.fc2", f"{THEIRS}.mlp.3"),
    *module("layers.{s}.downsample.norm", "features.{2s}.norm"),
    Rule("layers.{s}.downsample.reduction.weight", "features.{2s}.reduction.weight"),
    *module("norm", "norm"),
    *module("head.fc", "head"),
)
PARTS: dict[str, Any] = {
    "patches": ("features.0.0",), "patch_norm": ("features.0.2",), "block": ("features.{2s+1}.{b}",),
    "merge_norm": ("features.{2s}.norm",), "merge": ("features.{2s}.reduction",), "norm": ("norm",), "head": ("head",),
    "norm1": ("norm1",), "qkv": ("attn.qkv",), "out": ("attn.proj",), "norm2": ("norm2",), "first": ("mlp.0",),
    "second": ("mlp.3",),
}  # fmt: skip


def unsupported_windows(config: SwinConfig) -> list[str]:
    """One window, which never shrinks: torchvision pads maps that are smaller, and does not shift them."""
    found = one_window(config, stated_by("pad", "pad_roll"), square=False)
    return unlike_windows(config, found, "it states one window, which never shrinks")


def cannot_hold(config: SwinConfig) -> list[str]:
    """Version 1 with torchvision's options."""
    return unsupported(config, 1, margin="drop", qkv_bias=(True,)) + unsupported_windows(config)


FORMAT = Format(
    name="torchvision-swin",
    summary="torchvision's swin_* state_dict in a PyTorch file",
    family="swin",
    group="torchvision",
    names=Buffered(
        (
            *RULES,
            Rule(f"{BLOCK}.attn.qkv.bias", f"{THEIRS}.attn.qkv.bias"),
            Rule(f"{BLOCK}.attn.relative_position_bias_table", f"{THEIRS}.attn.relative_position_bias_table"),
        ),
        THEIRS,
        flat=True,
    ),
    signature=("features.0.0.weight", "features.1.0.attn.relative_position_bias_table"),
    set_aside=buffers.SET_ASIDE,
    buffer_facts=buffers.facts,
    conventions={**CONVENTIONS, "window_rule": "pad", "pad_order": "pad_roll", "margin_rule": "drop"},
    preprocessing=Preprocessing(crop_fraction=224 / 232),
    reader_defaults={"activation": "gelu"},
    writer=torch_file.write,
    cannot_hold=cannot_hold,
    second_reading=SwinReading(
        names=SwinPartNames(**PARTS, table=("attn.relative_position_bias_table",)),
        windows="pad",
        pads="pad_roll",
        margin="drop",
    ),
)
