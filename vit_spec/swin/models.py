"""Named models: timm's names and torchvision's, and their configs."""

from __future__ import annotations

import re

from vit_spec.model import Model
from vit_spec.preprocessing import Interpolation, Preprocessing
from vit_spec.swin.config import MarginRule, PadOrder, SwinConfig, WindowRule

_SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "tiny": (96, (2, 2, 6, 2)),
    "small": (96, (2, 2, 18, 2)),
    "base": (128, (2, 2, 18, 2)),
    "large": (192, (2, 2, 18, 2)),
}
"""Word in a name → width of the first stage, depths (Liu et al. 2021, section 3.3). Heads are 32 channels wide."""


def _model(
    name: str,
    size: str,
    side: int,
    window: int | tuple[int, ...],
    *,
    version: int = 1,
    pretrained: int | tuple[int, ...] = 0,
    depths: tuple[int, ...] | None = None,
    width: int | None = None,
    num_classes: int = 1000,
    rule: WindowRule = "axis",
    order: PadOrder = "roll_pad",
    margin: MarginRule = "pad",
    crop: float | None = None,
    interpolation: Interpolation = "bicubic",
) -> Model:
    embed_dim, usual = _SIZES[size]
    embed_dim = width or embed_dim
    config = SwinConfig().replace(
        version=version,
        image_size=side,
        embed_dim=embed_dim,
        depths=depths or usual,
        num_heads=tuple(embed_dim // 32 * 2**stage for stage in range(4)),
        window_sizes=window,
        pretrained_window_sizes=pretrained,
        window_rule=rule,
        pad_order=order,
        margin_rule=margin,
        num_classes=num_classes,
    )
    crop = crop or (1.0 if side == 384 else 0.9)
    return Model(name, config, Preprocessing(size=config.image_size, crop_fraction=crop, interpolation=interpolation))


def _version_1() -> list[Model]:
    """Liu et al. 2021. The weights under these names are Microsoft's."""
    names = [f"swin_{size}_patch4_window7_224" for size in _SIZES]
    names += [f"swin_{size}_patch4_window12_384" for size in ("base", "large")]
    return [_model(name, name.split("_")[1], *reversed(_numbers(name)[1:])) for name in names]


def _searched() -> list[Model]:
    """S3 (Chen et al. 2021, "Searching the Search Space of Vision Transformer")."""
    return [
        _model("swin_s3_tiny_224", "tiny", 224, (7, 7, 14, 7)),
        _model("swin_s3_small_224", "small", 224, (14, 14, 14, 7)),
        _model("swin_s3_base_224", "base", 224, (7, 7, 14, 7), depths=(2, 2, 30, 2), width=96),
    ]


def _version_2() -> list[Model]:
    """Liu et al. 2022. Models for ImageNet-22k have its 21,841 classes."""
    names = [f"swinv2_{size}_window{window}_256" for size in ("tiny", "small", "base") for window in (8, 16)]
    found = [_model(name, name.split("_")[1], *reversed(_numbers(name)[1:]), version=2) for name in names]
    for size in ("base", "large"):
        found.append(_model(f"swinv2_{size}_window12_192", size, 192, 12, version=2, num_classes=21841))
        found += [
            _model(
                f"swinv2_{size}_window12to{window}_192to{side}",
                size,
                side,
                window,
                version=2,
                pretrained=(12, 12, 12, 6),
            )
            for window, side in ((16, 256), (24, 384))
        ]
    return found


def _torchvision() -> list[Model]:
    """torchvision's names and preprocessing, for its own weights. Its windows never shrink."""
    resize = {"swin_t": 232, "swin_s": 246, "swin_b": 238, "swin_v2_t": 260, "swin_v2_s": 260, "swin_v2_b": 272}
    sizes = {"t": "tiny", "s": "small", "b": "base"}
    found = []
    for name, resized in resize.items():
        version, side, window = (2, 256, 8) if "v2" in name else (1, 224, 7)
        size = sizes[name[-1]]
        found.append(
            _model(
                name,
                size,
                side,
                window,
                version=version,
                rule="pad",
                order="pad_roll",
                margin="drop",
                crop=side / resized,
            )
        )
    return found


def _numbers(name: str) -> list[int]:
    """Those in a name: version or patch size, window, image size."""
    return [int(number) for number in re.findall(r"\d+", name)]


MODELS: tuple[Model, ...] = (*_version_1(), *_searched(), *_version_2(), *_torchvision())

_RESIDUAL = "SwinV2-CR is another model than Swin v2: its attention has key biases and a bias network of its own"
UNSUPPORTED: dict[str, str] = {
    f"swinv2_cr_{name}": _RESIDUAL
    for name in (
        *(f"{size}_{side}" for size in ("tiny", "small", "base", "large", "huge", "giant") for side in (224, 384)),
        "tiny_ns_224",
        "small_ns_224",
        "small_ns_256",
        "base_ns_224",
    )
}
"""Names of timm whose blocks this project does not compute, and why."""
