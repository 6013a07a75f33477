"""The names of timm, DeiT, DINO, MAE, MoCo v3 and this project's own models, which are the canonical names.

Written as one safetensors file.
"""

from collections.abc import Mapping
from typing import Any

from conversion.containers import safetensors_file
from conversion.format import Format
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Aliased, Rule, module
from conversion.tensors.table import TensorTable
from conversion.tensors.transforms import LinearPatches
from vit_spec import ViTConfig

ALIASES = (
    Rule("reg_token", "register_tokens"),  # DINOv2
    Rule("blocks.{i}.ls1.gamma", "blocks.{i}.gamma_1"),  # DeiT III
    Rule("blocks.{i}.ls2.gamma", "blocks.{i}.gamma_2"),
    *module("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.w12"),  # DINOv2's packed SwiGLU
    *module("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.w3"),
    Rule("patch_embed.proj.weight", "patch_embed.proj.weight", LinearPatches()),
)
"""Names of the original code where they differ from timm's."""
_PROJECTOR = "the projector of self-supervised training"
SET_ASIDE = {
    "mask_token": "a stand-in for hidden patches in masked pre-training, in no forward pass",
    "masked_embed": "a stand-in for hidden patches in masked pre-training, in no forward pass",  # iBOT
    "decoder_*": "the decoder that paints hidden patches in masked pre-training",
    "head.mlp.*": _PROJECTOR,  # DINO
    "head.last_layer.*": _PROJECTOR,
    "head.last_layer2.*": _PROJECTOR,  # iBOT
}


PARTS = PartNames(
    patches=("patch_embed.proj",), pixel_norm=("patch_embed.pixel_norm",), patch_norm=("patch_embed.norm",),
    tokens=(("cls_token",), ("dist_token",), ("reg_token", "register_tokens")), positions=("pos_embed",),
    norm_pre=("norm_pre",), block=("blocks.{i}",),
    norm1=("norm1", "in_norm"), qkv=("attn.qkv",), out=("attn.proj", "attn_out_proj"),
    scale1=("ls1.gamma", "gamma_1", "ls.gamma"), norm2=("norm2",), first=("mlp.fc1", "mlp.w12"), gate=("mlp.fc1_g",),
    gated=("mlp.fc1_x",), second=("mlp.fc2", "mlp.w3", "mlp_out_proj"),
    inside={"query": ("attn.q_norm", "q_norm"), "key": ("attn.k_norm", "k_norm"), "heads": ("attn.norm",),
            "hidden": ("mlp.norm",), "query bias": ("attn.q_bias",), "value bias": ("attn.v_bias",),
            "frequencies": ("attn.rotary.freqs",), "offsets": ("attn.relative_position_bias_table",)},
    scale2=("ls2.gamma", "gamma_2"), fused=("in_proj",), fused_bias=("mlp_bias",),
    norm=("norm",), pool_latent=("attn_pool.latent",), pool_query=("attn_pool.q",), pool_key_value=("attn_pool.kv",),
    pool_out=("attn_pool.proj",), pool_norm=("attn_pool.norm",), pool_first=("attn_pool.mlp.fc1",),
    pool_second=("attn_pool.mlp.fc2",), fc_norm=("fc_norm",), pre_logits=("pre_logits.fc",), head=("head",),
    head_dist=("head_dist",),
)  # fmt: skip


def is_eva(config: ViTConfig) -> bool:
    """Whether timm has a model in its class ``Eva``, whose names are another format's."""
    return config.rotary is not None or config.qv_bias or config.relative_bias


def cannot_hold(config: ViTConfig) -> list[str]:
    """Anything but models of that class."""
    return (
        [f"rotary={config.rotary!r}, qv_bias={config.qv_bias!r} (the format timm-eva does)"] if is_eva(config) else []
    )


def _projector(table: TensorTable, config: Mapping[str, Any]) -> dict[str, str]:
    """MoCo v3's projector: an MLP with BatchNorms under the head's name."""
    del config
    moco = "head.1.running_mean" in table
    return {name: _PROJECTOR for name in table if moco and name.startswith("head.")}


FORMAT = Format(
    name="timm",
    summary="the names of timm, DeiT, DINO and MAE",
    names=Aliased(ALIASES),
    signature=(("blocks.0.attn.qkv.weight", "blocks.0.in_proj.weight"),),
    before=("onnx-vit",),
    set_aside=SET_ASIDE,
    ignored_if=_projector,
    reader_defaults={"activation": "gelu"},
    writer=safetensors_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(names=PARTS, plain=False),
)
