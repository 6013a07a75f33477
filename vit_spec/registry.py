"""Named models, under timm's names (its ``create_model`` names without the weight tag)."""

from __future__ import annotations

import difflib
import fnmatch

from vit_spec.config import ViTConfig
from vit_spec.errors import VitportError
from vit_spec.models import FURTHER, UNSUPPORTED, Model
from vit_spec.preprocessing import HALF, Preprocessing

_SIZES = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}
"""Dosovitskiy et al. 2021, table 1; tiny and small: Touvron et al. 2021 (DeiT), table 1."""


def _model(
    name: str,
    size: str,
    *,
    patch_size: int,
    image_size: int,
    crop_fraction: float = 0.9,
    mean: tuple[float, ...] | None = None,
    **options: object,
) -> Model:
    config = ViTConfig().replace(**_SIZES[size], patch_size=patch_size, image_size=image_size, **options)
    preprocessing = Preprocessing(size=config.image_size, crop_fraction=crop_fraction)
    if mean is not None:
        preprocessing = preprocessing.replace(mean=mean, std=HALF)
    return Model(name, config, preprocessing)


def _vit() -> list[Model]:
    """The paper's family: every size, patch and picture size whose patches fill the picture.

    The weights under these names are Google's AugReg (Steiner et al. 2022): inputs in [-1, 1].
    """
    return [
        _model(
            f"vit_{size}_patch{patch}_{image}",
            size,
            patch_size=patch,
            image_size=image,
            mean=HALF,
            crop_fraction=0.9 if image == 224 else 1.0,
        )
        for size in _SIZES
        for patch in (8, 14, 16, 32)
        for image in (224, 384)
        if image % patch == 0
    ]


def _deit() -> list[Model]:
    """DeiT (Touvron et al. 2021), table 5."""
    sizes = [("tiny", 224), ("small", 224), ("base", 224), ("base", 384)]
    return [
        _model(
            f"deit_{size}_{'distilled_' if distilled else ''}patch16_{image}",
            size,
            patch_size=16,
            image_size=image,
            distilled=distilled,
            crop_fraction=0.9 if image == 224 else 1.0,
        )
        for distilled in (False, True)
        for size, image in sizes
    ]


def _dinov2() -> list[Model]:
    """DINOv2 (Oquab et al. 2024), and with four registers (Darcet et al. 2024), as timm stores them: with
    registers the class token's position is folded into the class token."""
    return [
        _model(
            f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2",
            size,
            patch_size=14,
            image_size=518,
            num_classes=0,
            layer_scale=1e-5,
            register_tokens=registers,
            crop_fraction=1.0,
            pos_embed="patch" if registers else "prefix",
        )
        for registers in (0, 4)
        for size in ("small", "base", "large")
    ]


REGISTRY: dict[str, Model] = {model.name: model for model in (*_vit(), *_deit(), *_dinov2())}
"""The papers' families: every one of their sizes."""
NAMED: dict[str, Model] = REGISTRY | FURTHER
"""Every name that :func:`get_model` knows."""


def get_model(name: str) -> Model:
    """The named model.

    Raises:
        VitportError: for an unknown name, with the nearest known ones; for a model that is not computed, with the
            reason.
    """
    if name in UNSUPPORTED:
        raise VitportError(f"{name} is not supported: {UNSUPPORTED[name]}; choose another name.")
    if name not in NAMED:
        near = difflib.get_close_matches(name.partition(".")[0], NAMED, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise VitportError(f"No model is named {name!r}: {hint}`vitport models` lists the {len(REGISTRY)} names.")
    return NAMED[name]


def list_models(pattern: str = "*") -> list[Model]:
    """Models of the papers' families whose name matches a shell pattern, or contains it where it has no wildcard."""
    wildcard = pattern if any(char in pattern for char in "*?[") else f"*{pattern}*"
    return [model for name, model in REGISTRY.items() if fnmatch.fnmatch(name, wildcard)]
