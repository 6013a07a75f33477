"""Models trained on labels, and variants of the paper's that have no weights."""

from __future__ import annotations

from vit_spec.vit.models.model import IMAGENET, UNSCALED, Model, Options, model

GAP: Options = {"class_token": False, "pool": "avg", "pos_embed": "patch"}
"""Mean of the normalised patches; no other tokens."""
REGISTERS: Options = GAP | {"final_norm": "pooled"}
"""Mean of the patches, then a norm; registers without a position."""


def _larger_vit() -> list[Model]:
    """Zhai et al. 2022, table 2, ViT-g and ViT-G; Ridnik et al. 2021; Touvron et al. 2022 (36x1); OpenCLIP's plus."""
    return [
        model("vit_giant_patch14_224"),
        model("vit_gigantic_patch14_224"),
        model("vit_base_patch16_224_miil", image_size=224, num_classes=11221, qkv_bias=False, crop=0.875,
              colours=UNSCALED, interpolation="bilinear"),
        model("vit_small_patch16_36x1_224", (384, 36, 6, 4), layer_scale=1e-5),
        model("vit_base_patch32_plus_256", "plus", layer_scale=1e-5, crop=0.95),
        model("vit_base_patch16_plus_240", "plus", layer_scale=1e-5, crop=0.95),
        model("vit_base_patch16_rpn_224", qkv_bias=False, block="post_norm", **REGISTERS),
        *(
            model(f"vit_{size}_patch16_18x2_224", (width, 18, heads, 4), block="branched", layer_scale=1e-5)
            for size, width, heads in (("small", 384, 6), ("base", 768, 12))
        ),
    ]  # fmt: skip


def _parallel() -> list[Model]:
    """Attention and MLP side by side, as in ViT-22B (Dehghani et al. 2023): timm's three of the classic sizes, and a
    small one of its searched shapes, whose attention may be differential."""
    normed: Options = {"norm": "rmsnorm", "norm_bias": False, "qk_norm": True, "qkv_bias": False}
    embedded: Options = {"pre_norm": True, "patch_bias": False, "pos_embed": "patch"}
    names = ("base_patch16", "large_patch14", "huge_patch14")
    return [
        *(model(f"vit_{name}_xp_224", block="parallel", **normed, **embedded) for name in names),
        *(
            model(
                f"vit_{name}_patch16_reg1_gap_256",
                (256, 16, 4, 5),
                block="parallel",
                differential=name == "dpwee",
                layer_scale=1e-5,
                register_tokens=1,
                crop=0.95,
                **REGISTERS,
            )
            for name in ("pwee", "dpwee")
        ),
    ]


def _gap() -> list[Model]:
    """timm's, with the mean of the patches in the class token's place."""
    scaled: Options = GAP | {"qkv_bias": False, "layer_scale": 1e-6, "crop": 0.95}
    return [
        model("vit_medium_patch16_gap_240", num_classes=11821, **scaled),
        model("vit_medium_patch16_gap_256", **scaled),
        model("vit_medium_patch16_gap_384", **scaled, resize="squash"),
        model("vit_betwixt_patch16_gap_256", **scaled),
        model("vit_base_patch16_gap_224", (768, 12, 16, 4), **GAP),
    ]


def _registers() -> list[Model]:
    """timm's searched shapes (SBB) with one or four registers."""
    few: Options = REGISTERS | {"layer_scale": 1e-5}
    names = (
        "wee_patch16_reg1_gap_256", "little_patch16_reg1_gap_256", "little_patch16_reg4_gap_256",
        "medium_patch16_reg1_gap_256", "medium_patch16_reg4_gap_256", "mediumd_patch16_reg4_gap_256",
        "mediumd_patch16_reg4_gap_384", "betwixt_patch16_reg1_gap_256", "betwixt_patch16_reg4_gap_256",
        "betwixt_patch16_reg4_gap_384",
    )  # fmt: skip
    models = [
        model(f"vit_{name}", register_tokens=4 if "reg4" in name else 1, crop=1.0 if "384" in name else 0.95, **few)
        for name in names
    ]
    models += [
        model(f"vit_d{size}_patch16_reg1_gap_256", size, differential=True, register_tokens=1, crop=0.95, **few)
        for size in ("wee", "little")
    ]
    models.append(model("vit_base_patch16_reg4_gap_256", register_tokens=4, **REGISTERS))
    optimal: Options = {"class_token": False, "register_tokens": 4, "pos_embed": "all"}
    models += [
        model("vit_so150m_patch16_reg4_map_256", pool="map", **optimal),
        model("vit_so150m_patch16_reg4_gap_256", pool="avg", crop=0.95, **optimal),
        model("vit_so150m_patch16_reg4_gap_384", pool="avg", crop=1.0, **optimal),
    ]
    second: Options = REGISTERS | {
        "register_tokens": 1,
        "pos_embed": "all",
        "qkv_bias": False,
        "layer_scale": 1e-5,
        "crop": 1.0,
    }
    return models + [
        model(f"vit_so150m2_patch16_reg1_gap_{side}", resize="squash" if side == 448 else "shortest", **second)
        for side in (256, 384, 448)
    ]


def _deit3() -> list[Model]:
    """DeiT III (Touvron et al. 2022, "DeiT III: Revenge of the ViT"), table 1."""
    names = ("small_patch16_224", "small_patch16_384", "medium_patch16_224", "base_patch16_224", "base_patch16_384",
             "large_patch16_224", "large_patch16_384", "huge_patch14_224")  # fmt: skip
    return [
        model(
            f"deit3_{name}", layer_scale=1e-6, pos_embed="patch", colours=IMAGENET, crop=0.9 if "224" in name else 1.0
        )
        for name in names
    ]


def _flexivit() -> list[Model]:
    """FlexiViT (Beyer et al. 2023) at its usual patch of 16."""
    return [
        model(f"flexivit_{size}", image_size=240, pos_embed="patch", pos_embed_resize="torch-bilinear", crop=0.95)
        for size in ("small", "base", "large")
    ]


def _tiny_tests() -> list[Model]:
    """timm's own models for tests."""
    one: Options = {"image_size": 160, "crop": 0.95}
    token: Options = one | {"class_token": False, "register_tokens": 1, "pos_embed": "all", "layer_scale": 1e-5}
    average: Options = token | {"pool": "avg", "final_norm": "pooled"}
    return [
        model("test_vit", (64, 6, 2, 3), **one),
        model("test_vit2", (64, 8, 2, 3), **average),
        model("test_vit3", (96, 9, 3, 2), pool="map", pool_prefix=True, **token),
        model("test_vit4", (96, 9, 3, 3), norm="rmsnorm", norm_bias=False, **average),
    ]


SUPERVISED: list[Model] = [
    *_larger_vit(), *_parallel(), *_gap(), *_registers(), *_deit3(), *_flexivit(), *_tiny_tests(),
]  # fmt: skip
