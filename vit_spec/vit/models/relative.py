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


RELATIVE: list[Model] = _beit()
