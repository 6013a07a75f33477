"""Small, asymmetric configs that between them use every field of ``ViTConfig``, and of ``SwinConfig``."""

from __future__ import annotations

from typing import Any

from vit_spec import SwinConfig, ViTConfig
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary

BASE = ViTConfig(
    image_size=(12, 20),  # 3 x 5 patches: rows and columns cannot be mixed up
    patch_size=4,
    in_channels=3,
    num_classes=7,
    embed_dim=24,
    depth=2,
    num_heads=3,  # of width 8, not 64
    mlp_hidden_dim=41,
)

CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "square": {"image_size": (8, 8)},
    "patch-2": {"patch_size": 2, "image_size": (4, 6)},
    "margin": {"patch_size": 5, "image_size": (13, 24)},  # 3 rows and 4 columns fill no patch
    "one-channel": {"in_channels": 1},
    "features": {"num_classes": 0},
    "wide": {"embed_dim": 30},
    "deep": {"depth": 3},
    "one-head": {"num_heads": 1},
    "mlp-ratio": {"mlp_hidden_dim": None, "mlp_ratio": 2.3},
    "swiglu": {"mlp": "swiglu", "activation": "silu"},
    "swiglu-packed": {"mlp": "swiglu_packed", "activation": "silu"},
    "swiglu-gelu": {"mlp": "swiglu", "activation": "gelu"},
    "gelu-tanh": {"activation": "gelu_tanh"},
    "quick-gelu": {"activation": "quick_gelu"},
    "silu": {"activation": "silu"},
    "relu": {"activation": "relu"},
    "mlp-norm": {"mlp_norm": True},
    "swiglu-norm": {"mlp": "swiglu", "mlp_norm": True},
    "swiglu-packed-norm": {"mlp": "swiglu_packed", "mlp_norm": True, "proj_bias": False},
    "no-qkv-bias": {"qkv_bias": False},
    "qk-scale": {"qk_scale": 0.6},
    "qk-norm": {"qk_norm": True},
    "attn-norm": {"attn_norm": True},
    "no-proj-bias": {"proj_bias": False},
    "no-mlp-bias": {"mlp_bias": False, "mlp": "swiglu_packed", "activation": "silu"},
    "mlp-bias-alone": {"proj_bias": False, "mlp_bias": True},
    "rmsnorm": {"norm": "rmsnorm", "norm_bias": False, "qk_norm": True},
    "no-norm-bias": {"norm_bias": False},
    "norm-eps": {"norm_eps": 0.1},
    "pre-norm": {"pre_norm": True},
    "post-norm": {"block": "post_norm", "layer_scale": 1e-5},
    "original": {"block": "original", "layer_scale": 1e-5},
    "parallel": {"block": "parallel", "layer_scale": 1e-5, "qk_scale": 0.6},
    "branched": {"block": "branched", "layer_scale": 1e-5},
    "branches": {"block": "branched", "branches": 3, "mlp": "swiglu", "attn_norm": True, "mlp_norm": True},
    "differential": {"differential": True, "depth": 2},
    "differential-norms": {"differential": True, "qk_norm": True, "attn_norm": True, "qk_scale": 0.6},
    "differential-parallel": {"differential": True, "block": "parallel", "qk_norm": True, "depth": 2},
    "parallel-no-qkv-bias": {"block": "parallel", "qkv_bias": False, "qk_norm": True},
    "parallel-no-proj-bias": {"block": "parallel", "proj_bias": False, "activation": "silu"},
    "norm-pooled": {"final_norm": "pooled"},
    "norm-none": {"final_norm": "none"},
    "layer-scale": {"layer_scale": 1e-5},
    "attention-scale": {"layer_scale": 1e-5, "scale_attention_only": True},
    "no-patch-bias": {"patch_bias": False},
    "pixel-norm": {"pixel_norm": True, "in_channels": 2, "image_size": (14, 23)},
    "patch-norm": {"patch_norm": True},
    "no-class-token": {"class_token": False, "pool": "avg"},
    "distilled": {"distilled": True},
    "distilled-features": {"distilled": True, "num_classes": 0},
    "distilled-pooled": {"distilled": True, "final_norm": "pooled", "register_tokens": 1, "pos_embed": "all"},
    "registers": {"register_tokens": 2},
    "position-none": {"pos_embed": "none"},
    "position-patch": {"pos_embed": "patch", "register_tokens": 2},
    "position-all": {"pos_embed": "all", "register_tokens": 2},
    "position-all-registers-only": {"pos_embed": "all", "register_tokens": 2, "class_token": False, "pool": "avg"},
    "relative-bias": {"relative_bias": True, "pos_embed": "none"},
    "relative-bias-table": {"relative_bias": True, "qk_norm": True},
    "relative-bias-patches": {"relative_bias": True, "pos_embed": "none", "class_token": False, "pool": "avg"},
    "relative-network": {"relative_hidden_dim": 9, "pos_embed": "none", "register_tokens": 1},
    "qv-bias": {"qkv_bias": False, "qv_bias": True},
    "dinov3": {"rotary": DinoV3Rotary(), "pos_embed": "none", "register_tokens": 2},
    "dinov3-periods": {"rotary": DinoV3Rotary(periods=(1.25, 7.0)), "pos_embed": "none", "qk_norm": True},
    "axial": {"rotary": AxialRotary(theta=100.0), "pos_embed": "none", "class_token": False, "pool": "avg"},
    "axial-scaled": {"rotary": AxialRotary(order="wh", offset=1.0, reference_grid=(4, 7))},
    "axial-halves": {"rotary": AxialRotary(pairs="halves"), "pos_embed": "patch", "block": "post_norm"},
    "mixed": {"rotary": MixedRotary(), "pos_embed": "patch"},
    "average": {"pool": "avg", "final_norm": "pooled", "register_tokens": 1},
    "map": {"pool": "map", "class_token": False, "activation": "gelu_tanh"},
    "average-over-all": {"pool": "avg", "pool_prefix": True, "register_tokens": 2},
    "map-heads": {"pool": "map", "map_heads": 4, "map_hidden_dim": 17},
    "map-over-all": {"pool": "map", "pool_prefix": True, "register_tokens": 1},
    "map-with-prefix": {"pool": "map", "register_tokens": 2, "final_norm": "pooled", "mlp": "swiglu"},
    "token-average": {"pool": "token_avg", "register_tokens": 2},
    "token-average-pre-logits": {"pool": "token_avg", "representation_size": 11},
    "pre-logits": {"representation_size": 13},
    "pre-logits-features": {"representation_size": 13, "num_classes": 0},
}

CONFIGS: dict[str, ViTConfig] = {name: BASE.replace(**{"depth": 1} | changes) for name, changes in CHANGES.items()}
"""One option each, in one block."""

# fmt: off
COMBINATIONS: dict[str, ViTConfig] = {
    name: BASE.replace(**{"depth": 1} | changes)
    for name, changes in {
        "plain": {"depth": 2},
        "scaled": {
            "in_channels": 1, "activation": "gelu_tanh", "qk_scale": 0.6, "layer_scale": 1e-5, "embed_dim": 30,
            "depth": 2,
        },
        "swiglu-map": {
            "mlp": "swiglu", "activation": "silu", "mlp_norm": True, "proj_bias": False, "qk_norm": True, "pool": "map",
            "class_token": False, "pos_embed": "patch", "patch_norm": True,
        },
        "language": {
            "mlp": "swiglu_packed", "activation": "silu", "mlp_bias": False, "norm": "rmsnorm", "norm_bias": False,
            "layer_scale": 0.1,
        },
        "rms-distilled": {
            "mlp": "swiglu_packed", "norm": "rmsnorm", "norm_bias": False, "attn_norm": True, "distilled": True,
            "register_tokens": 2, "pos_embed": "all", "final_norm": "pooled", "qk_norm": True,
        },
        "clip-like": {
            "activation": "quick_gelu", "pre_norm": True, "patch_bias": False, "qkv_bias": False, "pool": "token_avg",
            "representation_size": 11, "register_tokens": 2, "num_heads": 4,
        },
        "average": {
            "activation": "relu", "pos_embed": "none", "pool": "avg", "final_norm": "pooled", "mlp_norm": True,
            "mlp_hidden_dim": None, "mlp_ratio": 2.3, "register_tokens": 1, "pool_prefix": True,
        },
        "features": {
            "activation": "silu", "final_norm": "none", "num_classes": 0, "norm_eps": 0.1, "image_size": (4, 6),
            "patch_size": 2, "block": "post_norm",
        },
        "distilled": {"distilled": True, "layer_scale": 1.0},
        "dinov3": {
            "rotary": DinoV3Rotary(periods=(1.0, 3.5)), "pos_embed": "none", "register_tokens": 2, "layer_scale": 1e-5,
            "qkv_bias": False, "qv_bias": True, "mlp": "swiglu", "activation": "silu", "depth": 2,
        },
        "sapiens2": {
            "rotary": DinoV3Rotary(), "pos_embed": "none", "register_tokens": 1, "layer_scale": 1e-4,
            "scale_attention_only": True, "qk_norm": True, "norm": "rmsnorm", "norm_bias": False,
            "mlp": "swiglu_packed", "activation": "silu",
        },
        "axial": {
            "rotary": AxialRotary(order="wh", offset=1.0, reference_grid=(4, 7)), "pos_embed": "all", "pool": "map",
            "pool_prefix": True, "register_tokens": 1, "pre_norm": True, "qk_norm": True, "map_heads": 2,
            "map_hidden_dim": 19,
        },
        "mixed": {"rotary": MixedRotary(), "pos_embed": "none"},
        "beit": {
            "relative_bias": True, "pos_embed": "none", "qkv_bias": False, "qv_bias": True, "layer_scale": 0.1,
            "pool": "avg", "final_norm": "pooled",
        },
        "relpos": {
            "relative_hidden_dim": 11, "pos_embed": "none", "pool": "avg", "qkv_bias": False, "final_norm": "pooled",
            "layer_scale": 1e-6, "depth": 2,
        },
        "normed-pixels": {
            "pixel_norm": True, "patch_norm": True, "class_token": False, "pool": "avg", "image_size": (14, 22),
        },
        "branched": {
            "block": "branched", "branches": 3, "layer_scale": 1e-5, "qkv_bias": False, "qv_bias": True,
            "qk_norm": True,
        },
        "differential": {"differential": True, "layer_scale": 1e-5, "attn_norm": True, "depth": 2},
        "original": {"block": "original", "depth": 2, "final_norm": "none", "layer_scale": 1e-5, "attn_norm": True},
        "parallel": {
            "block": "parallel", "norm": "rmsnorm", "norm_bias": False, "qkv_bias": False, "qk_norm": True,
            "pre_norm": True, "patch_bias": False, "pos_embed": "patch", "layer_scale": 1e-5,
        },
    }.items()
}
# fmt: on
"""Every option again, several to a model, for what is too slow to try one by one."""

SWIN_BASE = SwinConfig(
    image_size=(24, 40),  # maps of 12 x 20 and 6 x 10: multiples of the window, and none
    patch_size=2,
    num_classes=7,
    embed_dim=12,
    depths=(2, 2),
    num_heads=(2, 3),  # of widths 6 and 8
    window_sizes=4,  # type: ignore[arg-type]
    pretrained_window_sizes=0,  # type: ignore[arg-type]
    mlp_ratio=1.5,
)
_THREE = {"depths": (2, 2, 2), "num_heads": (2, 3, 4), "pretrained_window_sizes": 0}

SWIN_CHANGES: dict[str, dict[str, Any]] = {
    "swin": {},
    "swin-square": {"image_size": 16},
    "swin-roll-pad": {"image_size": (20, 36), "pad_order": "roll_pad"},
    "swin-odd-maps": {"image_size": (20, 28), "window_sizes": 3} | _THREE,  # 10 x 14, 5 x 7, 3 x 4
    "swin-odd-maps-roll-pad": {"image_size": (20, 28), "window_sizes": 4, "pad_order": "roll_pad"} | _THREE,
    "swin-rectangular-windows": {"window_sizes": ((2, 5), (3, 4))},
    "swin-axis": {"image_size": (12, 40)},  # 6 x 20 and 3 x 10: one axis shorter than the window
    "swin-axis-equal": {"image_size": (16, 32)},  # 8 x 16 and 4 x 8: one axis as long as the window
    "swin-min": {"image_size": (12, 40), "window_rule": "min"},
    "swin-min-equal": {"image_size": (32, 16), "window_rule": "min"},
    "swin-pad": {"image_size": (12, 40), "window_rule": "pad"},
    "swin-never": {"image_size": (12, 12), "window_rule": "never"},  # 6 x 6 and 3 x 3
    "swin-window-1": {"window_sizes": (1, 4)},
    "swin-odd-depths": {"depths": (1, 3)},
    "swin-one-stage": {"depths": (2,), "num_heads": (3,), "window_sizes": 5, "pretrained_window_sizes": 0},
    "swin-no-qkv-bias": {"qkv_bias": False},
    "swin-no-patch-norm": {"patch_norm": False, "in_channels": 1},
    "swin-margin": {"image_size": (21, 35)},  # of 11 x 18 patches
    "swin-margin-drop": {"image_size": (21, 35), "margin_rule": "drop"},  # of 10 x 17 patches
    "swin-positions": {"absolute_pos_embed": True},
    "swin-gelu-tanh": {"activation": "gelu_tanh", "norm_eps": 0.1},
    "swin-patch-norm-eps": {"patch_norm_eps": 0.1},
    "swin-features": {"num_classes": 0},
    "swin-backbone": {"num_classes": 0, "final_norm": False, "stage_norms": (0,), "window_rule": "never"},
    "swin-backbone-normed": {"num_classes": 0, "stage_norms": (0, 1), "window_sizes": 3} | _THREE,
    "swin-2": {"version": 2},
    "swin-2-square": {"version": 2, "image_size": 16},
    "swin-2-roll-pad": {"version": 2, "image_size": (20, 36), "pad_order": "roll_pad"},
    "swin-2-odd-maps": {"version": 2, "image_size": (20, 28), "window_sizes": 3} | _THREE,
    "swin-2-rectangular-windows": {"version": 2, "window_sizes": ((2, 5), (3, 4))},
    "swin-2-axis": {"version": 2, "image_size": (12, 40)},
    "swin-2-min": {"version": 2, "image_size": (12, 40), "window_rule": "min"},
    "swin-2-pad": {"version": 2, "image_size": (12, 40), "window_rule": "pad"},
    "swin-2-never": {"version": 2, "image_size": (12, 12), "window_rule": "never"},
    "swin-2-window-1": {"version": 2, "window_sizes": (1, 4)},
    "swin-2-pretrained": {"version": 2, "pretrained_window_sizes": ((3, 5), (0, 2))},
    "swin-2-no-qkv-bias": {"version": 2, "qkv_bias": False, "activation": "relu"},
}
SWIN_CONFIGS: dict[str, SwinConfig] = {name: SWIN_BASE.replace(**changes) for name, changes in SWIN_CHANGES.items()}
"""One option each."""
