"""What a Swin Transformer is: one frozen dataclass that both frameworks build their modules from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vit_spec.activation import Activation
from vit_spec.errors import VitportError
from vit_spec.reading import fields_in_json, height_and_width
from vit_spec.validation import (
    MOST_BLOCKS,
    MOST_CLASSES,
    check_at_least,
    check_at_most,
    check_choices,
    check_eps,
    check_rates,
    check_types,
    field_types,
    replaced,
)

Version = Literal[1, 2]
"""1: pre-norm, a table of relative position biases (Liu et al. 2021). 2: residual post-norm, cosine attention, and a
bias that a small network computes from log-spaced offsets (Liu et al. 2022)."""

WindowRule = Literal["axis", "min", "pad", "never"]
"""What happens where a stage's map is not larger than its window. The implementations differ:

- ``axis``: on each axis the window shrinks to the map, and a window as long as the map is not shifted (timm).
- ``min``: if the shorter side of the map is not longer than the window, the window shrinks to it on both axes, and
  neither is shifted (Microsoft's classifiers, Hugging Face, mmpretrain). Windows must be square.
- ``pad``: windows keep their size, maps are padded; an axis with one window is not shifted (torchvision).
- ``never``: windows keep their size and shift, maps are padded (Microsoft's and MMDetection's detectors).
"""

PadOrder = Literal["roll_pad", "pad_roll"]
"""Whether a map that windows do not divide is padded after the cyclic shift (timm) or before it (all others)."""

MarginRule = Literal["pad", "drop"]
"""What becomes of pixels at the bottom and the right that fill no patch: zeros complete them to one (Hugging Face,
OpenMMLab, Microsoft's detectors), or they are not read (torchvision). timm and Microsoft's classifiers refuse images
that have such pixels."""

Windows = tuple[tuple[int, int], ...]
"""Height and width of a window, in tokens, for each stage."""


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """Everything that changes what a Swin Transformer computes, and nothing else.

    Sizes are in pixels, windows in tokens, widths in channels, rates in [0, 1). The defaults are Swin-T (Liu et al.
    2021, section 3.3).

    Raises:
        VitportError: if values contradict each other; the message names them.
    """

    family: ClassVar[str] = "swin"

    version: Version = 1
    image_size: tuple[int, int] = (224, 224)
    """Height and width of the input image; an int means a square."""
    patch_size: int = 4
    margin_rule: MarginRule = "pad"
    in_channels: int = 3
    num_classes: int = 1000
    """Width of the head; 0 means no head: the model returns the pooled features."""

    embed_dim: int = 96
    """Width of the first stage; each further stage is twice as wide."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each stage."""
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    """Heads of each stage."""
    window_sizes: Windows = ((7, 7),) * 4
    """Window of each stage before ``window_rule``. An int means the same square in all stages; an int in the place of a
    stage's (height, width) means a square."""
    pretrained_window_sizes: Windows = ((0, 0),) * 4
    """Version 2: the window by which offsets are normalised, for each stage; 0 means the stage's own after
    ``window_rule``. Weights that were trained with another window than they run with need it (Liu et al. 2022,
    section 3.3). Given like ``window_sizes``."""
    window_rule: WindowRule = "axis"
    pad_order: PadOrder = "pad_roll"

    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    qkv_bias: bool = True
    """Version 1: a bias of queries, keys and values; version 2: of queries and values."""
    norm_eps: float = 1e-5
    """Of the norms in blocks, of the last one and of ``stage_norms``."""
    patch_norm: bool = True
    """A norm after the patch embedding."""
    patch_norm_eps: float = 1e-5
    """Of that norm and of those in patch merging."""
    absolute_pos_embed: bool = False
    """A learned position table that is added to the patches. No published model has one."""
    final_norm: bool = True
    """A norm after the last stage."""
    stage_norms: tuple[int, ...] = ()
    """Stages before the last whose maps are normalised when they are returned, as in backbones of detectors."""

    drop_rate: float = 0.0
    """Dropout after the patch embedding and after every projection of attention and MLP."""
    attn_drop_rate: float = 0.0
    """Dropout on the attention weights."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; it rises linearly from 0 at the first, over all stages (Liu et al. 2021)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", height_and_width(self.image_size, "image_size"))
        for name in ("depths", "num_heads", "stage_norms"):
            object.__setattr__(self, name, _ints(getattr(self, name), name))
        for name in ("window_sizes", "pretrained_window_sizes"):
            object.__setattr__(self, name, _windows(getattr(self, name), name, len(self.depths)))
        if self.version not in (1, 2) or isinstance(self.version, bool):
            raise VitportError(f"version={self.version!r} is unknown: choose 1 or 2.")
        check_types(self)
        check_choices(self)
        self._check_sizes()
        self._check_stages()
        self._check_windows()
        check_rates(self)

    def _check_sizes(self) -> None:
        numbers = {name: getattr(self, name) for name in ("patch_size", "in_channels", "embed_dim")}
        least = {"image_size": self.image_size, "depths": self.depths, "num_heads": self.num_heads}
        check_at_most(numbers | {"image_size": max(self.image_size)})
        check_at_least(1, numbers | {name: min(values, default=0) for name, values in least.items()})
        check_at_least(1, {"mlp_ratio * embed_dim": self.hidden_dim(0)})
        check_at_least(0, {"num_classes": self.num_classes})
        check_at_most({"mlp_ratio * embed_dim": self.hidden_dim(0)})
        check_at_most({"num_classes": self.num_classes}, MOST_CLASSES)
        check_at_most({"the sum of depths": sum(self.depths)}, MOST_BLOCKS)
        check_eps("norm_eps", self.norm_eps)
        check_eps("patch_norm_eps", self.patch_norm_eps)
        if self.margin_rule == "drop" and min(self.image_size) < self.patch_size:
            raise VitportError(
                f"image_size={self.image_size[0]}x{self.image_size[1]} has no whole patch of patch_size="
                f"{self.patch_size}, and margin_rule='drop' reads no others: choose a larger image or a smaller patch."
            )

    def _check_stages(self) -> None:
        if len(self.num_heads) != len(self.depths):
            raise VitportError(
                f"num_heads={self.num_heads} and depths={self.depths} must have the same length, one number for each "
                "stage."
            )
        for stage, (width, heads) in enumerate(zip(self.widths, self.num_heads, strict=True)):
            if width % heads:
                raise VitportError(
                    f"The width {width} of stage {stage} does not divide among num_heads={heads}: choose a width that "
                    "is a multiple of the number of heads."
                )
        if sorted(set(self.stage_norms)) != list(self.stage_norms) or not set(self.stage_norms) <= set(
            range(self.num_stages - 1)
        ):
            raise VitportError(
                f"stage_norms={self.stage_norms} must be rising numbers of stages before the last, from 0 to "
                f"{self.num_stages - 2}; final_norm is the last stage's."
            )
        if self.num_classes and not self.final_norm:
            raise VitportError(
                f"num_classes={self.num_classes} needs final_norm=True: the head reads normalised features. Choose "
                "num_classes=0 for a backbone."
            )

    def _check_windows(self) -> None:
        for name, least in {"window_sizes": 1, "pretrained_window_sizes": 0}.items():
            check_at_least(least, {name: min(map(min, getattr(self, name)))})
        if self.window_rule == "min" and any(height != width for height, width in self.window_sizes):
            raise VitportError(
                f"window_rule='min' shrinks both sides of a window alike, but window_sizes={self.window_sizes} has one "
                "that is not square: choose window_rule='axis'."
            )
        if self.version == 1 and any(map(any, self.pretrained_window_sizes)):
            raise VitportError(
                f"pretrained_window_sizes={self.pretrained_window_sizes} belongs to version 2, but version=1: leave it "
                "at 0."
            )
        if any(1 in window for window in self.pretrained_window_sizes):
            raise VitportError(
                f"pretrained_window_sizes={self.pretrained_window_sizes} has a side of 1, by which no offset can be "
                "normalised: give 0 for the model's own window."
            )

    @property
    def num_stages(self) -> int:
        return len(self.depths)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(self.num_stages))

    @property
    def num_features(self) -> int:
        """Channels of the last stage, which the head reads."""
        return self.widths[-1]

    @property
    def map_sizes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of tokens in each stage. Merging halves them, rounded up."""
        more = self.patch_size - 1 if self.margin_rule == "pad" else 0
        rows, columns = ((side + more) // self.patch_size for side in self.image_size)
        return tuple((-(-rows // 2**stage), -(-columns // 2**stage)) for stage in range(self.num_stages))

    @property
    def whole_patches(self) -> bool:
        """Whether patches fill the image, so that ``margin_rule`` means nothing."""
        return all(side % self.patch_size == 0 for side in self.image_size)

    def hidden_dim(self, stage: int) -> int:
        """Hidden width of the MLPs of a stage."""
        return int(self.widths[stage] * self.mlp_ratio)

    @property
    def drop_path_rates(self) -> tuple[float, ...]:
        """Stochastic depth of each block of all stages, rising linearly from 0 to ``drop_path_rate``."""
        blocks = sum(self.depths)
        return tuple(self.drop_path_rate * block / max(blocks - 1, 1) for block in range(blocks))

    def replace(self, **changes: Any) -> SwinConfig:
        """A copy with the named fields changed, validated again.

        With another number of stages, windows that are the same in all of them stay so.
        """
        for name in ("window_sizes", "pretrained_window_sizes"):
            windows: Windows = getattr(self, name)
            if "depths" in changes and len(changes["depths"]) != self.num_stages and len(set(windows)) == 1:
                changes.setdefault(name, windows[:1] * len(changes["depths"]))
        return replaced(self, changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every field written out, and ``"family"``."""
        return {"family": self.family} | {name: _plain(value) for name, value in dataclasses.asdict(self).items()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SwinConfig:
        """The inverse of :meth:`to_dict`; fields left out take their defaults, unknown ones are refused."""
        return cls().replace(**{name: value for name, value in values.items() if name != "family"})

    @classmethod
    def from_json(cls, text: str) -> SwinConfig:
        return cls.from_dict(fields_in_json(text, "SwinConfig"))


FIELDS = tuple(field_types(SwinConfig))


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _ints(values: Any, name: str) -> tuple[int, ...]:
    found = tuple(values) if isinstance(values, (tuple, list)) else None
    if found is None or not all(isinstance(value, int) and not isinstance(value, bool) for value in found):
        raise VitportError(f"{name}={values!r} must be a list of whole numbers.")
    return found


def _windows(values: Any, name: str, stages: int) -> Windows:
    if isinstance(values, int):
        values = (values,) * stages
    if not isinstance(values, (tuple, list)) or len(values) != stages:
        raise VitportError(
            f"{name}={values!r} does not fit {stages} stages: give one int, or an int or (height, width) for each."
        )
    return tuple(height_and_width(value, name) for value in values)
