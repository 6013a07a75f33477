"""The plain Vision Transformer as a family."""

from __future__ import annotations

from vit_spec.family import Family
from vit_spec.vit.config import ViTConfig
from vit_spec.vit.cost import block_sizes, forward_flops, longest_sum
from vit_spec.vit.margin import margin_in_words
from vit_spec.vit.models import MODELS, UNSUPPORTED
from vit_spec.vit.options import TIMM_NAMES
from vit_spec.vit.parameters import parameters, segments

VIT = Family(
    name=ViTConfig.family,
    config=ViTConfig,
    parameters=parameters,
    segments=segments,
    block_sizes=block_sizes,
    forward_flops=forward_flops,
    longest_sum=longest_sum,
    size_fields=(
        "depth",
        "embed_dim",
        "patch_size",
        "mlp",
        "hidden_dim",
        "block",
        "norm_bias",
        "qkv_bias",
        "qk_norm",
        "attn_norm",
        "proj_bias",
        "mlp_norm",
        "pre_norm",
        "patch_bias",
        "patch_norm",
        "class_token",
        "distilled",
        "register_tokens",
    ),
    aliases=TIMM_NAMES,
    remarks=margin_in_words,
    models=MODELS,
    unsupported=UNSUPPORTED,
)
