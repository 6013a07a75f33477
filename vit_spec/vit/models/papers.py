"""The models of the ViT, DeiT and DINOv2 papers, in every size."""

from __future__ import annotations

from vit_spec.vit.models.model import CENTRED, IMAGENET, Model, model

_SIZES = ("tiny", "small", "base", "large", "huge")


def _crop(side: int) -> float:
    """timm's evaluation crop: the whole image above 224 pixels."""
    return 0.9 if side == 224 else 1.0


def _vit() -> list[Model]:
    """Dosovitskiy et al. 2021: every size, patch and image size whose patches fill the image.

    The weights under these names are Google's AugReg (Steiner et al. 2022): inputs in [-1, 1].
    """
    return [
        model(f"vit_{size}_patch{patch}_{side}", colours=CENTRED, crop=_crop(side))
        for size in _SIZES
        for patch in (8, 14, 16, 32)
        for side in (224, 384)
        if side % patch == 0
    ]


def _deit() -> list[Model]:
    """DeiT (Touvron et al. 2021), table 5."""
    sizes = [("tiny", 224), ("small", 224), ("base", 224), ("base", 384)]
    return [model(f"deit_{size}_patch16_{side}", colours=IMAGENET, crop=_crop(side)) for size, side in sizes] + [
        model(f"deit_{size}_distilled_patch16_{side}", colours=IMAGENET, crop=_crop(side), distilled=True)
        for size, side in sizes
    ]


def _dinov2() -> list[Model]:
    """DINOv2 (Oquab et al. 2024), and with four registers (Darcet et al. 2024), as timm stores them: with
    registers the class token's position is folded into the class token."""
    return [
        model(
            f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2",
            image_size=518,
            num_classes=0,
            layer_scale=1e-5,
            register_tokens=registers,
            pos_embed="patch" if registers else "prefix",
            colours=IMAGENET,
            crop=1.0,
        )
        for registers in (0, 4)
        for size in ("small", "base", "large")
    ]


PAPERS: list[Model] = [*_vit(), *_deit(), *_dinov2()]
