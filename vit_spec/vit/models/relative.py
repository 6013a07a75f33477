"""Models with biases by relative position."""

from __future__ import annotations

from vit_spec.vit.models.model import CENTRED, IMAGENET, Model, Options, joined, model


def _beit() -> list[Model]:
    """BEiT (Bao et al. 2022) and its second version (Peng et al. 2022), fine-tuned on labels."""
    common: Options = {
        "qkv_bias": False, "qv_bias": True, "relative_bias": True, "pos_embed": "none", "pool": "avg",
        "final_norm": "pooled", "layer_scale": 1e-5,
    }  # fmt: skip
    return [
        *(
            model(
                f"beit_{size}_patch16_{side}",
                crop=0.9 if side == 224 else 1.0,
                colours=CENTRED,
                **joined(common, {"layer_scale": 0.1 if size == "base" else 1e-5}),
            )
            for size, sides in (("base", (224, 384)), ("large", (224, 384, 512)))
            for side in sides
        ),
        model("beitv2_base_patch16_224", colours=IMAGENET, **common),
        model("beitv2_large_patch16_224", colours=IMAGENET, crop=0.95, **common),
    ]


def _relpos() -> list[Model]:
    """timm's own models with networks of biases by relative position; each block has its own where timm's share one."""
    bare: Options = {"class_token": False, "pos_embed": "none", "pool": "avg", "relative_hidden_dim": 128}
    scaled: Options = bare | {"qkv_bias": False, "layer_scale": 1e-6}
    pooled: Options = scaled | {"final_norm": "pooled"}
    token: Options = scaled | {"class_token": True, "pool": "token"}
    post: Options = bare | {"block": "post_norm"}
    base, small, medium = "base", "small", "medium"
    return [
        model("vit_relpos_base_patch32_plus_rpn_256", "plus", **post),
        model("vit_relpos_base_patch16_plus_240", "plus", **joined(bare, {"layer_scale": 1e-6})),
        *(model(f"vit_relpos_{size}_patch16_224", size, **pooled) for size in (small, medium, base)),
        model("vit_srelpos_small_patch16_224", small, **joined(scaled, {"relative_hidden_dim": 384})),
        model("vit_srelpos_medium_patch16_224", medium, **joined(scaled, {"relative_hidden_dim": 512})),
        model("vit_relpos_medium_patch16_cls_224", medium, **joined(token, {"relative_hidden_dim": 256})),
        model("vit_relpos_base_patch16_cls_224", base, **token),
        model("vit_relpos_base_patch16_clsgap_224", base, **joined(pooled, {"class_token": True})),
        *(
            model(f"vit_relpos_{size}_patch16_rpn_224", size, **joined(post, {"qkv_bias": False}))
            for size in (small, medium, base)
        ),
        model("test_vit_relpos", (96, 9, 3, 2), image_size=160, crop=0.95, **pooled),
    ]


RELATIVE: list[Model] = [*_beit(), *_relpos()]
