"""Image towers of CLIP and its successors: trained on images with captions."""

from __future__ import annotations

from vit_spec.vit.models.model import CENTRED, CLIP, Model, model

_TOWER = {"pre_norm": True, "patch_bias": False, "norm_eps": 1e-5}
_CLIP: dict[str, tuple[int, float]] = {
    "xsmall_patch16_clip_224": (512, 0.9),
    "medium_patch32_clip_224": (512, 0.9),
    "medium_patch16_clip_224": (512, 0.9),
    "betwixt_patch32_clip_224": (512, 0.9),
    "base_patch32_clip_224": (1000, 0.9),
    "base_patch32_clip_256": (512, 1.0),
    "base_patch32_clip_384": (1000, 1.0),
    "base_patch32_clip_448": (1000, 1.0),
    "base_patch16_clip_224": (1000, 0.95),
    "base_patch16_clip_384": (1000, 1.0),
    "base_patch16_plus_clip_240": (640, 1.0),
    "large_patch14_clip_224": (1000, 1.0),
    "large_patch14_clip_336": (1000, 1.0),
    "huge_patch14_clip_224": (1000, 1.0),
    "huge_patch14_clip_336": (1000, 1.0),
    "huge_patch14_clip_378": (1024, 1.0),
    "giant_patch14_clip_224": (1024, 1.0),
    "gigantic_patch14_clip_224": (1280, 1.0),
    "gigantic_patch14_clip_378": (1280, 1.0),
    "base_patch32_clip_quickgelu_224": (512, 0.9),
    "base_patch16_clip_quickgelu_224": (512, 1.0),
    "large_patch14_clip_quickgelu_224": (768, 1.0),
    "large_patch14_clip_quickgelu_336": (768, 1.0),
    "huge_patch14_clip_quickgelu_224": (1024, 1.0),
    "huge_patch14_clip_quickgelu_378": (1024, 1.0),
    "gigantic_patch14_clip_quickgelu_224": (1280, 1.0),
}
"""Name → width of the head (the joint space of images and texts, or ImageNet's classes), crop fraction."""
_FINE_TUNED_CENTRED = {"large_patch14_clip_224", "large_patch14_clip_336"}
_SQUASHED = {"base_patch16_clip_384", "large_patch14_clip_336", "huge_patch14_clip_336", "gigantic_patch14_clip_378"}


def _clip() -> list[Model]:
    """Radford et al. 2021, section 2.4; the larger sizes by OpenCLIP (Cherti et al. 2023)."""
    return [
        model(
            f"vit_{name}",
            "plus" if "plus" in name else None,
            num_classes=classes,
            crop=crop,
            colours=CENTRED if name in _FINE_TUNED_CENTRED else CLIP,
            resize="squash" if name in _SQUASHED else "shortest",
            activation="quick_gelu" if "quickgelu" in name else "gelu",
            **_TOWER,
        )
        for name, (classes, crop) in _CLIP.items()
    ]


_SIGLIP: dict[str, tuple[int, ...]] = {
    "base_patch32": (256,),
    "base_patch16": (224, 256, 384, 512),
    "large_patch16": (256, 384, 512),
    "so400m_patch14": (224, 378, 384),
    "so400m_patch16": (256, 384, 512),
    "giantopt_patch16": (256, 384),
}
_TANH = {("base_patch32", 256), ("large_patch16", 512)}
"""The names that only SigLIP 2 has, besides all of so400m_patch16 and giantopt; timm gives them the tanh GELU."""
_SO400M = (1152, 27, 16, 3.7362)


def _siglip() -> list[Model]:
    """SigLIP (Zhai et al. 2023) and SigLIP 2 (Tschannen et al. 2025), pooled by attention or by the mean."""
    models: list[Model] = []
    for pool, infix in (("map", "siglip"), ("avg", "siglip_gap")):
        for family, sides in _SIGLIP.items():
            gemma = (448, 896) if (family, pool) == ("so400m_patch14", "avg") else ()
            for side in (*sides, *gemma):
                late = family in ("so400m_patch16", "giantopt_patch16") or (family, side) in _TANH
                models.append(
                    model(
                        f"vit_{family}_{infix}_{side}",
                        _SO400M if "so400m" in family else None,
                        image_size=side,  # of 384, patches of 14 leave the last six rows and columns unseen
                        num_classes=0,
                        class_token=False,
                        pos_embed="patch",
                        pool=pool,
                        activation="gelu_tanh" if late else "gelu",
                        crop=1.0 if gemma and side in (384, *gemma) else 0.9,
                    )
                )
    return models


CONTRASTIVE: list[Model] = [*_clip(), *_siglip()]
