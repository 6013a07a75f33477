"""Models trained without labels, or from several such teachers."""

from __future__ import annotations

from vit_spec.vit.models.model import CLIP, IMAGENET, UNSCALED, Model, model

_GIANT = (1536, 40, 24, 4)
_SWIGLU_GIANT = {"mlp": "swiglu_packed", "mlp_hidden_dim": 4096, "activation": "silu"}


def _dinov2_giant() -> list[Model]:
    """Oquab et al. 2024, table 17; the smaller ones stand in ``vit_spec.registry``."""
    common = {"num_classes": 0, "layer_scale": 1e-5, "image_size": 518, "colours": IMAGENET, "crop": 1.0}
    return [
        model("vit_giant_patch14_dinov2", _GIANT, **common | _SWIGLU_GIANT),
        model(
            "vit_giant_patch14_reg4_dinov2",
            _GIANT,
            **common | _SWIGLU_GIANT | {"register_tokens": 4, "pos_embed": "patch"},
        ),
    ]


def _tips() -> list[Model]:
    """TIPS, second version (Maninis et al. 2025): DINOv2's shapes with one register."""
    common = {"num_classes": 0, "layer_scale": 1.0, "image_size": 448, "colours": UNSCALED, "crop": 1.0,
              "register_tokens": 1, "pos_embed": "patch"}  # fmt: skip
    return [
        model("vit_base_patch14_reg1_tipsv2", **common),
        model("vit_large_patch14_reg1_tipsv2", **common),
        model("vit_so400m_patch14_reg1_tipsv2", **common),
        model("vit_giant_patch14_reg1_tipsv2", _GIANT, **common | _SWIGLU_GIANT),
    ]


def _ijepa() -> list[Model]:
    """I-JEPA (Assran et al. 2023)."""
    common = {"num_classes": 0, "class_token": False, "pool": "avg", "pos_embed": "patch", "colours": IMAGENET}
    return [
        model("vit_huge_patch14_gap_224", **common),
        model("vit_huge_patch16_gap_448", crop=1.0, **common),
        model("vit_giant_patch16_gap_224", **common),
    ]


def _eva() -> list[Model]:
    """EVA's large models (Fang et al. 2023), fine-tuned."""
    common = {"pool": "avg", "final_norm": "pooled", "colours": CLIP, "crop": 1.0}
    return [
        model("eva_large_patch14_196", **common),
        model("eva_large_patch14_336", resize="squash", **common),
    ]


def _beit3() -> list[Model]:
    """BEiT-3's image expert (Wang et al. 2023), with NormFormer's inner norms."""
    common = {"attn_norm": True, "mlp_norm": True, "pool": "avg", "final_norm": "pooled", "norm_eps": 1e-5,
              "colours": IMAGENET, "crop": 1.0}  # fmt: skip
    giant = (1408, 40, 16, 4.3637)
    return [
        model("beit3_base_patch16_224", **common),
        model("beit3_large_patch16_224", **common),
        model("beit3_giant_patch14_224", giant, **common),
        model("beit3_giant_patch14_336", giant, **common),
    ]


def _aimv2() -> list[Model]:
    """AIMv2 (Fini et al. 2024), table 1."""
    sizes = {"large": (1024, 24, 8, 2.75), "huge": (1536, 24, 12, 2.6667), "1b": (2048, 24, 16, 2.75),
             "3b": (3072, 24, 24, 2.6667)}  # fmt: skip
    common = {"num_classes": 0, "class_token": False, "pool": "avg", "pos_embed": "patch", "qkv_bias": False,
              "proj_bias": False, "mlp": "swiglu", "activation": "silu", "norm": "rmsnorm", "norm_bias": False,
              "norm_eps": 1e-5, "patch_norm": True, "colours": CLIP, "crop": 1.0}  # fmt: skip
    return [
        model(f"aimv2_{size}_patch14_{side}", shape, **common)
        for side in (224, 336, 448)
        for size, shape in sizes.items()
    ]


def _radio() -> list[Model]:
    """C-RADIO (Ranzinger et al. 2024; Heinrich et al. 2025): several class tokens, all but the first as registers."""
    common = {"num_classes": 0, "image_size": 512, "pos_embed": "patch", "final_norm": "none", "colours": CLIP,
              "crop": 1.0}  # fmt: skip
    return [
        model("vit_base_patch16_radio_v3", layer_scale=1e-5, register_tokens=7, **common),
        model("vit_large_patch16_radio_v3", layer_scale=1e-5, register_tokens=7, **common),
        model("vit_huge_patch16_radio_v3", register_tokens=7, **common),
        model("vit_giant_patch16_radio_v3", _GIANT, register_tokens=7, **common),
        model("vit_so400m_patch16_radio_v4", register_tokens=9, **common),
        model("vit_huge_patch16_radio_v4", register_tokens=9, **common),
    ]


def _intern() -> list[Model]:
    """InternViT-300M (Chen et al. 2024, InternVL)."""
    return [
        model(
            "vit_intern300m_patch14_448", num_classes=0, layer_scale=0.1, final_norm="none", colours=IMAGENET, crop=1.0
        )
    ]


SELF_SUPERVISED: list[Model] = [
    *_dinov2_giant(), *_tips(), *_ijepa(), *_eva(), *_beit3(), *_aimv2(), *_radio(), *_intern(),
]  # fmt: skip
