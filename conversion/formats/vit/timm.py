"""The names of timm, DeiT, DINO, MAE, MoCo v3 and this project's own models, which are the canonical names.

Written as one safetensors file.
"""

from collections.abc import Mapping
from typing import Any

from conversion.containers import safetensors_file
from conversion.format import Format
from conversion.formats.vit import mask_token
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Aliased, Renamed, Rule, module
from conversion.tensors.table import TensorTable
from conversion.tensors.transforms import Beside, LinearPatches, Sum
from vit_spec import ViTConfig
from vit_spec.vit.rotary import AxialRotary

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
_JOINER = "what joins neighbouring patches for a language model"
_FACTORS = ("q1", "k1", "q2", "k2")
_DIFFERENCE = tuple(
    rule
    for at in ("blocks.{i}.attn", "blocks.{i}", "blocks.{i}.attns.{j}.attn")
    for rule in (
        *(Rule(f"{at}.difference.lambda_{name}", f"{at}.lambda_{name}") for name in _FACTORS),
        Rule(f"{at}.difference.sub_norm.weight", f"{at}.sub_norm.weight"),
    )
)
_OUT = "blocks.{i}.attn_out_proj", "blocks.{i}.mlp_out_proj"
_JOINT_OUT = (
    Rule(tuple(f"{name}.weight" for name in _OUT), "blocks.{i}.out_proj.weight", Beside()),
    Rule(tuple(f"{name}.bias" for name in _OUT), "blocks.{i}.out_proj.bias", Sum()),
)
"""timm's parallel blocks with differential attention."""
SET_ASIDE = {
    "mask_token": mask_token.UNREAD,
    "masked_embed": mask_token.UNREAD,  # iBOT
    "decoder_*": "the decoder that paints hidden patches in masked pre-training",
    "head.mlp.*": _PROJECTOR,  # DINO
    "head.last_layer.*": _PROJECTOR,
    "head.last_layer2.*": _PROJECTOR,  # iBOT
    "merger.*": _JOINER,  # Qwen3-VL
    "aligner.*": _JOINER,  # DeepSeek
}


class _Names(Aliased):
    """Writes differential attention as timm has it."""

    def write(self, table: TensorTable, config: Any) -> TensorTable:
        if not config.differential:
            return table
        return Renamed((*_DIFFERENCE, *_JOINT_OUT)).write(table, config)


PARTS = PartNames(
    patches=("patch_embed.proj",), pixel_norm=("patch_embed.pixel_norm",), patch_norm=("patch_embed.norm",),
    tokens=(("cls_token",), ("dist_token",), ("reg_token", "register_tokens")), positions=("pos_embed",),
    norm_pre=("norm_pre",), block=("blocks.{i}",),
    norm1=("norm1", "in_norm"), qkv=("attn.qkv",), out=("attn.proj", "attn_out_proj"),
    scale1=("ls1.gamma", "gamma_1", "ls.gamma"), norm2=("norm2",), first=("mlp.fc1", "mlp.w12"), gate=("mlp.fc1_g",),
    gated=("mlp.fc1_x",), second=("mlp.fc2", "mlp.w3", "mlp_out_proj"),
    inside={"query": ("attn.q_norm", "q_norm"), "key": ("attn.k_norm", "k_norm"), "heads": ("attn.norm",),
            "hidden": ("mlp.norm",), "query bias": ("attn.q_bias",), "value bias": ("attn.v_bias",),
            "frequencies": ("attn.rotary.freqs",), "offsets": ("attn.relative_position_bias_table",),
            **{f"factor {factor}": (f"attn.lambda_{factor}", f"lambda_{factor}", f"attn.difference.lambda_{factor}",
                                    f"difference.lambda_{factor}") for factor in ("q1", "k1", "q2", "k2")},
            "difference": ("attn.sub_norm", "sub_norm", "attn.difference.sub_norm", "difference.sub_norm"),
            "joint out": ("out_proj",),
            "offsets' first layer": ("attn.rel_pos.mlp.fc1",), "offsets' second layer": ("attn.rel_pos.mlp.fc2",)},
    branches=("attns.{j}", "ffns.{j}"), branch={"norm": ("norm",), "scale": ("ls.gamma",)},
    scale2=("ls2.gamma", "gamma_2"), fused=("in_proj",), fused_bias=("mlp_bias",),
    norm=("norm",), pool_latent=("attn_pool.latent",), pool_query=("attn_pool.q",), pool_key_value=("attn_pool.kv",),
    pool_out=("attn_pool.proj",), pool_norm=("attn_pool.norm",), pool_first=("attn_pool.mlp.fc1",),
    pool_second=("attn_pool.mlp.fc2",), fc_norm=("fc_norm",), pre_logits=("pre_logits.fc",), head=("head",),
    head_dist=("head_dist",),
)  # fmt: skip


def is_relpos(config: ViTConfig) -> bool:
    """Whether timm has a model in its class ``VisionTransformerRelPos``, whose names are another format's."""
    table = config.relative_bias and (config.qkv_bias or not config.class_token)
    return table or config.relative_hidden_dim is not None


def is_eva(config: ViTConfig) -> bool:
    """Whether timm has a model in its classes ``Eva`` or ``Beit``, whose names are another format's."""
    return not is_relpos(config) and (config.rotary is not None or config.qv_bias or config.relative_bias)


def cannot_hold(config: ViTConfig) -> list[str]:
    """Anything but models of those classes."""
    if is_relpos(config):
        return ["biases by relative position (the format timm-relpos does)"]
    return (
        [f"rotary={config.rotary!r}, qv_bias={config.qv_bias!r} (the format timm-eva does)"] if is_eva(config) else []
    )


def _projector(table: TensorTable, config: Mapping[str, Any]) -> dict[str, str]:
    """MoCo v3's projector: an MLP with BatchNorms under the head's name."""
    del config
    moco = "head.1.running_mean" in table
    return {name: _PROJECTOR for name in table if moco and name.startswith("head.")}


def _behind_encoders(aside: TensorTable, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What joins patches for a language model shows whose encoder it is, and so its rotary positions."""
    of = "merger" if "pos_embed" in shapes else "aligner"
    return {"rotary": AxialRotary(pairs="halves")} if f"{of}.fc1.weight" in aside else {}


FORMAT = Format(
    name="timm",
    summary="the names of timm, DeiT, DINO and MAE",
    names=_Names((*ALIASES, *_DIFFERENCE, *_JOINT_OUT)),
    signature=(("blocks.0.attn.qkv.weight", "blocks.0.in_proj.weight", "blocks.0.attns.0.attn.qkv.weight"),),
    before=("onnx-vit",),
    set_aside=SET_ASIDE,
    ignored_if=_projector,
    buffer_facts=_behind_encoders,
    reader_defaults={"activation": "gelu"},
    writer=safetensors_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(names=PARTS, plain=False),
)
