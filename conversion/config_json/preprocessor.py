"""preprocessor_config.json as transformers' image processors obey it.

https://huggingface.co/docs/transformers/main_classes/image_processor: a file says some values, and the class that it
names has the others. What :class:`vit_spec.Preprocessing` cannot express is refused by its key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_spec import Preprocessing, VitportError
from vit_spec.preprocessing import CLIP_MEAN, CLIP_STD, HALF

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's ``Image.Resampling``, which preprocessor_config.json stores as a number."""
_MOST = 30.0
"""Pixels beyond this have fewer than six decimals in float32, so two orders of computing them differ by 1e-5."""


@dataclass(frozen=True, kw_only=True)
class _Class:
    """What a class of transformers takes for keys that a file leaves out."""

    size: Mapping[str, int]
    crop: int | None
    """Side of ``crop_size``; ``None``: ``do_center_crop`` is false unless stated."""
    resample: int = 3
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalises: bool = True
    """``do_normalize``."""
    one_number_is_square: bool
    """Whether a ``size`` of one number is both sides, else the shorter one."""


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


_CLIP = {"size": {"shortest_edge": 224}, "crop": 224, "mean": CLIP_MEAN, "std": CLIP_STD, "one_number_is_square": False}
_HALF = {"mean": HALF, "std": HALF, "one_number_is_square": True}
CLASSES = {
    "ViT": _Class(**_HALF, size=_square(224), crop=None, resample=2),
    "DeiT": _Class(**_HALF, size=_square(256), crop=224),
    "Bit": _Class(**_CLIP),
    "CLIP": _Class(**_CLIP),
    "ChineseCLIP": _Class(**_CLIP),
    "Siglip": _Class(mean=HALF, std=HALF, size=_square(224), crop=None, one_number_is_square=False),
    "Siglip2": _Class(mean=HALF, std=HALF, size=_square(256), crop=None, resample=2, one_number_is_square=True),
    "Blip": _Class(size=_square(384), crop=None, mean=CLIP_MEAN, std=CLIP_STD, one_number_is_square=True),
    "GotOcr2": _Class(size=_square(384), crop=None, mean=CLIP_MEAN, std=CLIP_STD, one_number_is_square=True),
    "Tipsv2": _Class(**_HALF, size=_square(448), crop=None, resample=2, normalises=False),
}
"""Image processors by the beginning of their names; others compute something else, or nothing here needs them."""
_OF_MODEL = {
    "vit": "ViT", "vit_mae": "ViT", "vit_msn": "ViT", "ijepa": "ViT", "deit": "DeiT", "dinov2": "Bit",
    "dinov2_with_registers": "Bit", "clip": "CLIP", "clip_vision_model": "CLIP", "siglip": "Siglip",
    "siglip_vision_model": "Siglip", "siglip2": "Siglip2", "siglip2_vision_model": "Siglip2",
    "aimv2_vision_model": "CLIP", "internvl_vision": "GotOcr2", "tipsv2_vision_model": "Tipsv2",
}  # fmt: skip
"""``model_type`` in config.json → the class of files that name none, as in transformers' ``AutoImageProcessor``."""


def preprocessing(told: Mapping[str, Any], config_json: Mapping[str, Any], channels: int) -> Preprocessing:
    """The preprocessing that transformers' class would do, on an RGB image or, for one channel, a grey one.

    Args:
        told: the content of preprocessor_config.json.
        config_json: the config.json beside it, for the class of files that name none.
        channels: of the model's images.

    Raises:
        VitportError: for a value that has no meaning, or none that ``Preprocessing`` can express, by its key.
    """
    usual = _class(told, config_json)
    if not _flag(told, "do_resize", True):
        raise _refused("do_resize", False, "images of any size have to be resized for a Vision Transformer")
    for name in ("do_pad", "use_square_size", "crop_to_patches"):
        if _flag(told, name, False):
            raise _refused(name, True, "this is not supported")
    if usual is CLASSES["GotOcr2"] and _flag(told, "do_center_crop", False):
        raise _refused("do_center_crop", True, "its class cuts out no centre")
    if usual is CLASSES["Siglip2"]:  # the grid of square images; others keep their shape there, and are squashed here
        side = math.isqrt(int(told.get("max_num_patches", 256))) * int(told.get("patch_size", 16))
        told = {**told, "size": _square(side)}
    mean, std = _colours(told, usual, channels)
    return Preprocessing(**_sizes(told, usual), mean=mean, std=std, interpolation=_filter(told, usual))


def _class(told: Mapping[str, Any], config_json: Mapping[str, Any]) -> _Class:
    key = next((key for key in ("image_processor_type", "feature_extractor_type") if told.get(key) is not None), None)
    if key is None:
        return CLASSES[_OF_MODEL.get(str(config_json.get("model_type")), "ViT")]
    kind = re.fullmatch(r"(\w+?)(ImageProcessor|FeatureExtractor)(Fast|Pil)?", str(told[key]))
    if kind is None or kind[1] not in CLASSES:
        raise _refused(key, told[key], f"known are {', '.join(f'{name}ImageProcessor' for name in CLASSES)}")
    return CLASSES[kind[1]]


def _sizes(told: Mapping[str, Any], usual: _Class) -> dict[str, Any]:
    """Resizing and cropping. transformers cuts the smaller half of an odd margin off the left and the top."""
    size = _size(told, "size", usual.size, square=usual.one_number_is_square)
    crops = _flag(told, "do_center_crop", usual.crop is not None)
    default = None if usual.crop is None else _square(usual.crop)
    crop = _size(told, "crop_size", default, square=True) if crops else None
    if crop is not None and set(crop) != {"height", "width"}:
        raise _refused("crop_size", told.get("crop_size"), "it needs a height and a width")
    if set(size) == {"height", "width"}:
        whole = (size["height"], size["width"])
        if crop is None or (crop["height"], crop["width"]) == whole:
            return {"size": whole, "resize": "squash"}
        return _cropped(told, crop, whole, "squash_crop")
    if set(size) != {"shortest_edge"}:
        raise _refused("size", told.get("size"), "it must be a height and a width, or a shortest_edge")
    if crop is None:
        raise _refused("size", told.get("size", dict(size)), "without do_center_crop every image has another size")
    return _cropped(told, crop, (size["shortest_edge"], size["shortest_edge"]), "shortest")


def _cropped(told: Mapping[str, Any], crop: Mapping[str, int], whole: tuple[int, int], resize: str) -> dict[str, Any]:
    size = (crop["height"], crop["width"])
    longer = max(range(2), key=size.__getitem__)
    share = _fraction(size[longer], whole[longer])
    scaled = whole if resize == "shortest" else tuple(math.floor(side / share) for side in size)
    if share > 1 or scaled != whole:
        raise _refused(
            "crop_size",
            told.get("crop_size", dict(crop)),
            f"it must lie within {whole[0]}x{whole[1]}, and have its proportions if both sides are resized apart",
        )
    return {"size": size, "resize": resize, "crop_fraction": share, "cropping": "transformers"}


def _fraction(side: int, edge: int) -> float:
    """``side / edge``, adjusted so that ``floor(side / fraction)`` is ``edge`` again despite rounding."""
    share = side / edge
    return share if math.floor(side / share) == edge else math.nextafter(share, 0)


def _size(told: Mapping[str, Any], key: str, default: Mapping[str, int] | None, *, square: bool) -> Mapping[str, int]:
    value = told.get(key, default)
    if _is_side(value):
        return _square(value) if square else {"shortest_edge": value}
    if isinstance(value, list) and len(value) == 2 and all(map(_is_side, value)):
        return {"height": value[0], "width": value[1]}
    if isinstance(value, Mapping):
        sides = {name: side for name, side in value.items() if side is not None}
        if sides and all(map(_is_side, sides.values())):
            return sides
    raise _refused(key, value, "it is not a size in pixels")


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20


def _colours(told: Mapping[str, Any], usual: _Class, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels divided by 255, whatever the file divides them by."""
    factor = told.get("rescale_factor", 1 / 255)
    if not _is_number(factor) or factor <= 0:
        raise _refused("rescale_factor", factor, "it must be a positive number")
    rescales, normalises = _flag(told, "do_rescale", True), _flag(told, "do_normalize", usual.normalises)
    mean = _per_channel(told, "image_mean", usual.mean, channels) if normalises else (0.0,) * channels
    std = _per_channel(told, "image_std", usual.std, channels) if normalises else (1.0,) * channels
    scale = 255 * factor if rescales else 255.0
    if not all(deviation > 0 and max(abs(one), abs(scale - one)) <= _MOST * deviation
               for one, deviation in zip(mean, std, strict=True)):  # fmt: skip
        key = "do_rescale" if not rescales else "rescale_factor" if abs(scale - 1) > 1e-3 else "image_std"
        raise _refused(key, told.get(key), f"it gives pixels beyond {_MOST:g}, which float32 holds to few decimals")
    if abs(scale - 1) < 1e-12:
        return mean, std
    return tuple(it / scale for it in mean), tuple(it / scale for it in std)


def _per_channel(told: Mapping[str, Any], key: str, default: tuple[float, ...], channels: int) -> tuple[float, ...]:
    value = told.get(key, list(default))
    if _is_number(value):
        return (value,) * channels
    if isinstance(value, list) and len(value) == channels and all(map(_is_number, value)):
        return tuple(value)
    raise _refused(key, value, f"the model's images have {channels} channel{'s' if channels > 1 else ''}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def _filter(told: Mapping[str, Any], usual: _Class) -> Any:
    value = told.get("resample", usual.resample)
    if isinstance(value, bool) or not isinstance(value, int) or value not in RESAMPLE:
        raise _refused(
            "resample", value, f"known are {', '.join(f'{number} ({it})' for number, it in RESAMPLE.items())}"
        )
    return RESAMPLE[value]


def _flag(told: Mapping[str, Any], key: str, default: bool) -> bool:
    """A switch; ``null`` is false in some versions of transformers and the class's own value in others."""
    value = told.get(key, default)
    if value is None and not default:
        return False
    if not isinstance(value, bool):
        raise _refused(key, value, "it must be true or false")
    return value


def _refused(key: str, value: Any, why: str) -> VitportError:
    return VitportError(
        f"preprocessor_config.json has {key}={value!r}, but {why}: correct it, or remove the file to choose the "
        "preprocessing yourself."
    )
