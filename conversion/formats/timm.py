"""Canonical names: timm, DeiT, DINO, MAE, and this project's own models. Written as one safetensors file."""

from conversion.containers import safetensors_file
from conversion.format import Format
from conversion.rules import Verbatim

FORMAT = Format(
    name="timm",
    summary="timm's names in one safetensors file, config and preprocessing in its metadata",
    names=Verbatim(),
    signature=("blocks.0.attn.qkv.weight",),
    set_aside={"mask_token": "stands in for hidden patches in masked pre-training, never in a forward pass"},
    writer=safetensors_file.write,
)
