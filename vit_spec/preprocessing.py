"""How an image is prepared for a model. Weights are only valid together with their preprocessing."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vit_spec.errors import VitportError
from vit_spec.reading import fields_in_json, height_and_width

Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"]
ResizeMode = Literal["shortest", "squash", "squash_crop"]
"""``shortest`` resizes the shorter side to ``size / crop_fraction`` and crops the centre; ``squash`` resizes both sides
to ``size`` without keeping the aspect ratio (Google's evaluation, ViTImageProcessor); ``squash_crop`` resizes both
sides to ``size / crop_fraction``, likewise, and crops the centre (DeiTImageProcessor, timm's crop_mode squash)."""
Cropping = Literal["torchvision", "transformers"]
"""How ``shortest`` and ``squash_crop`` cut out the centre. ``torchvision`` (timm, OpenAI's CLIP) rounds half of an odd
margin to an even number, and scales for sizes that are not square until both sides are covered; ``transformers``
rounds half of a margin down, and always scales the image's shorter side to the longer of the two."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an image to a model's input: resize, crop, divide by 255, subtract ``mean``, divide by ``std``.

    ``size`` is (height, width) in pixels; ``mean`` and ``std`` are per channel, of values in [0, 1], RGB.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bicubic"
    resize: ResizeMode = "shortest"
    crop_fraction: float = 0.875
    """Side of the crop as a fraction of the resized side; ``resize='squash'`` alone does not use it."""
    cropping: Cropping = "torchvision"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", height_and_width(self.size, "size"))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _per_channel(getattr(self, name), name))
        if min(self.size) < 1:
            raise VitportError(
                f"size={self.size!r} must have sides of at least 1 pixel: give one int or (height, width)."
            )
        if len(self.mean) != len(self.std) or not self.mean:
            raise VitportError(
                f"mean={self.mean} and std={self.std} must have the same length, one number for each channel."
            )
        if min(self.std) <= 0:
            raise VitportError(f"std={self.std} must be positive in every channel.")
        if not isinstance(self.crop_fraction, (int, float)) or not 0 < self.crop_fraction <= 1:
            raise VitportError(f"crop_fraction={self.crop_fraction!r} must be in (0, 1].")
        for name, choices in {
            "interpolation": get_args(Interpolation),
            "resize": get_args(ResizeMode),
            "cropping": get_args(Cropping),
        }.items():
            if getattr(self, name) not in choices:
                raise VitportError(f"{name}={getattr(self, name)!r} is unknown: choose one of {', '.join(choices)}.")

    def replace(self, **changes: Any) -> Preprocessing:
        """A copy with the named fields changed, validated anew."""
        names = [field.name for field in dataclasses.fields(self)]
        unknown = sorted(set(changes) - set(names))
        if unknown:
            raise VitportError(f"Preprocessing has no field {', '.join(unknown)}: its fields are {', '.join(names)}.")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every field written out."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_dict`; fields left out take their defaults, unknown ones are refused."""
        return cls().replace(**values)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        return cls.from_dict(fields_in_json(text, "Preprocessing"))


def _per_channel(values: Any, name: str) -> tuple[float, ...]:
    numbers = tuple(values) if isinstance(values, (tuple, list)) else ()
    if not numbers or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers):
        raise VitportError(f"{name}={values!r} must be finite numbers: give one for each channel.")
    return numbers
