"""The names that timm has used since its version 0.9, which are the canonical names.

Written as one safetensors file.
"""

from conversion.checkpoint import Checkpoint
from conversion.containers import safetensors_file
from conversion.format import Format
from conversion.formats.swin import buffers
from conversion.formats.swin.agreement import same_function
from conversion.formats.swin.parts import CONVENTIONS, MODULES, merging, pure, tables
from conversion.second_reading.swin import SwinPartNames, SwinReading
from conversion.tensors.rules import Aliased
from vit_spec import SwinConfig
from vit_spec.swin.windows import windowings

PARTS = SwinPartNames(
    patches=("patch_embed.proj",), patch_norm=("patch_embed.norm",), positions=("absolute_pos_embed",),
    block=("layers.{s}.blocks.{b}", "layers_{s}.blocks.{b}"),
    merge_norm=("layers.{s}.downsample.norm", "layers_{s}.downsample.norm"),
    merge=("layers.{s}.downsample.reduction", "layers_{s}.downsample.reduction"), stage_norm=("stage_norms.{s}",),
    norm=("norm",), head=("head.fc",),
    norm1=("norm1",), qkv=("attn.qkv",), query_bias=("attn.q_bias",), value_bias=("attn.v_bias",), out=("attn.proj",),
    table=("attn.relative_position_bias_table",), logit_scale=("attn.logit_scale",), bias_first=("attn.cpb_mlp.0",),
    bias_second=("attn.cpb_mlp.2",), norm2=("norm2",), first=("mlp.fc1",), second=("mlp.fc2",),
)  # fmt: skip


def computed_otherwise(checkpoint: Checkpoint) -> list[str]:
    """timm shrinks each axis on its own, and pads after the shift."""
    config = checkpoint.config
    assert isinstance(config, SwinConfig)
    own = config.replace(window_rule="axis", pad_order="roll_pad")
    height, width = config.image_size
    if not config.whole_patches:
        return [
            f"timm itself refuses images of {height}x{width} pixels, which patches of {config.patch_size} do not fill; "
            f"vitport reads margin_rule={config.margin_rule!r} in the file's record"
        ]
    if same_function(config, own):
        return []
    sizes = ", ".join(f"{it.window[0]}x{it.window[1]}" for it in windowings(own))
    return [
        f"timm itself computes another function than this model at {height}x{width} pixels: its windows are {sizes}, "
        f"and it pads after the shift; vitport reads window_rule={config.window_rule!r} and "
        f"pad_order={config.pad_order!r} in the file's record"
    ]


FORMAT = Format(
    name="timm-swin",
    summary="the names of timm's Swin Transformers",
    family="swin",
    group="timm",
    names=Aliased((
        *pure("layers_{s}.blocks.{b}", *MODULES),  # features_only
        *tables("layers_{s}.blocks.{b}.attn"),
        *merging("layers_{s+1}.downsample"),
    )),
    signature=(("layers.0.blocks.0.attn.qkv.weight", "layers_0.blocks.0.attn.qkv.weight"),),
    before=("timm", "onnx-swin"),
    set_aside=buffers.SET_ASIDE | {"*.k_bias": "zeros in place of a key bias, which version 2 does not have"},
    buffer_facts=buffers.facts,
    conventions={**CONVENTIONS, "window_rule": "axis", "pad_order": "roll_pad"},
    reader_defaults={"activation": "gelu"},
    writer=safetensors_file.write,
    computed_otherwise=computed_otherwise,
    second_reading=SwinReading(
        names=PARTS, windows="axis", pads="roll_pad", margin=None, recorded=True, activation=None, eps=None,
        inner_eps=None,
    ),
)  # fmt: skip
