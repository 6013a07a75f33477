"""Canonical names: timm, DeiT, DINO, MAE, MoCo v3, and this project's own models. Written as one safetensors file."""

from collections.abc import Mapping
from typing import Any

from conversion.containers import safetensors_file
from conversion.format import Format
from conversion.tensors.rules import Aliased, Rule, module
from conversion.tensors.table import TensorTable
from conversion.tensors.transforms import LinearPatches

ALIASES = (
    Rule("reg_token", "register_tokens"),  # DINOv2
    Rule("blocks.{i}.ls1.gamma", "blocks.{i}.gamma_1"),  # DeiT III
    Rule("blocks.{i}.ls2.gamma", "blocks.{i}.gamma_2"),
    *module("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.w12"),  # DINOv2's packed SwiGLU
    *module("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.w3"),
    Rule("patch_embed.proj.weight", "patch_embed.proj.weight", LinearPatches()),
)
"""Names of the originals where they differ from timm's."""
PROJECTOR = "the projector of self-supervised training"
SET_ASIDE = {
    "mask_token": "a stand-in for hidden patches in masked pre-training, in no forward pass",
    "decoder_*": "the decoder that paints hidden patches in masked pre-training",
    "head.mlp.*": PROJECTOR,  # DINO
    "head.last_layer.*": PROJECTOR,
}


def projector(table: TensorTable, config: Mapping[str, Any]) -> dict[str, str]:
    """MoCo v3's projector, an MLP with BatchNorms under the head's name."""
    del config
    moco = "head.1.running_mean" in table
    return {name: PROJECTOR for name in table if moco and name.startswith("head.")}


FORMAT = Format(
    name="timm",
    summary="the names of timm, DeiT, DINO and MAE",
    names=Aliased(ALIASES),
    signature=(("blocks.0.attn.qkv.weight", "blocks.0.in_proj.weight"),),
    set_aside=SET_ASIDE,
    idle=projector,
    assumes={"activation": "gelu"},
    writer=safetensors_file.write,
)
