"""What is read and how it is augmented: the part of a run's configuration that concerns data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vit_spec import VitportError

Crop = Literal["random_resized", "resize_crop", "shift", "none"]
Corrupt = Literal["skip", "fail"]
Levels = Literal["increasing", "original"]


@dataclass(frozen=True)
class RandAugment:
    """A few operations chosen by chance, all of one strength (Cubuk et al. 2020)."""

    layers: int = 0
    """Operations a picture, each drawn from all of them; 0 means none."""
    levels: Levels = "increasing"
    """What strength means: a greater change in every operation, as in timm's increasing set of fifteen; or what it
    means in the authors' code, which big_vision uses, where posterising and solarising change the less the stronger
    they are, and Cutout (DeVries & Taylor 2017) is a sixteenth operation."""
    magnitude: float = 9.0
    """Strength from 0 to 10."""
    spread: float = 0.0
    """Standard deviation of the strength, which is kept within 0 and 10."""
    probability: float = 1.0
    """Of each operation, once drawn, to be carried out."""

    def __post_init__(self) -> None:
        if self.layers < 0:
            raise VitportError(f"augment.randaugment.layers={self.layers} counts operations: give 0 or more.")
        if not 0 <= self.magnitude <= 10:
            raise VitportError(f"augment.randaugment.magnitude={self.magnitude} is none: give a number from 0 to 10.")
        if not 0 <= self.spread < float("inf"):
            raise VitportError(f"augment.randaugment.spread={self.spread} is no deviation: give 0 or more.")
        if not 0 <= self.probability <= 1:
            raise VitportError(
                f"augment.randaugment.probability={self.probability} is none: give a number from 0 to 1."
            )


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training picture on the CPU; mixup and CutMix belong to the loss, on the device."""

    crop: Crop = "random_resized"
    """``random_resized``: a part of random area and shape, scaled to the model's size (Szegedy et al. 2015, section 6);
    ``resize_crop``: the picture scaled until it covers that size, mirrored beyond its edges by 4 pixels, cut at random
    (Touvron et al. 2022, DeiT III, section 3.3); ``shift``: the evaluation's cut, moved by up to ``pad`` pixels, black
    beyond its edges (He et al. 2016, section 4.2); ``none``: just that cut."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and largest share of the picture's area in a ``random_resized`` crop."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest width over height of a ``random_resized`` crop, in the picture's own pixels."""
    pad: int = 4
    """Pixels of a ``shift``, in the model's size."""
    flip: float = 0.5
    """Probability that left and right are exchanged: 0 where that changes the meaning, as of digits."""
    randaugment: RandAugment = field(default_factory=RandAugment)
    three_augment: bool = False
    """One of grey, solarised and blurred, by equal chance (Touvron et al. 2022, section 3.2); the paper adds a
    ``jitter`` of 0.3."""
    jitter: float = 0.0
    """Largest change, as a share, of brightness, contrast and saturation, each uniform, in random order; 0: none."""
    erasing: float = 0.0
    """Probability that a rectangle becomes noise (Zhong et al. 2020)."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise VitportError(f"augment.scale={self.scale} are no shares of an area: give two, rising, above 0 to 1.")
        low, high = self.ratio
        if not 0 < low <= high < float("inf"):
            raise VitportError(f"augment.ratio={self.ratio} are no ratios of sides: give two, rising, above 0.")
        if self.pad < 0:
            raise VitportError(f"augment.pad={self.pad} counts pixels: give 0 or more.")
        for name in ("flip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise VitportError(f"augment.{name}={getattr(self, name)} is no probability: give one from 0 to 1.")
        if not 0 <= self.jitter < float("inf"):
            raise VitportError(f"augment.jitter={self.jitter} is no share: give 0 or more.")
        if self.three_augment and self.randaugment.layers:
            raise VitportError(
                f"augment.three_augment and randaugment.layers={self.randaugment.layers} are two policies: choose one."
            )


@dataclass(frozen=True)
class Data:
    """Where the pictures are, and what happens to them before the device sees them."""

    path: str = "digits"
    """A folder of class folders, perhaps in train/ and val/; a folder, file or pattern of tar shards, Parquet, Arrow or
    ArrayRecord files; a folder of IDX files (MNIST and its family); ``hf://owner/name``; or ``digits`` for
    scikit-learn's."""
    validation: str | None = None
    """Path of the validation pictures, if not those that ``path`` itself sets apart."""
    workers: int = 0
    """Processes that decode and augment; with 0, threads of the training process do."""
    repeats: int = 1
    """Places in a row that each picture takes, augmented otherwise in each (Hoffer et al. 2020): an epoch, as long as
    ever, then has a share of the pictures."""
    corrupt: Corrupt = "skip"
    """What a picture that cannot be read does: it is left out, and named; or it ends the run."""
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise VitportError(f"data.workers={self.workers} counts processes: give 0 or more.")
        if self.repeats < 1:
            raise VitportError(f"data.repeats={self.repeats} leaves no picture: give 1 or more.")
