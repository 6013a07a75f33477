"""Options of a run that concern its data: where the images are, and how they are augmented."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vit_spec import VitportError

Crop = Literal["random_resized", "resize_crop", "shift", "none"]
Corrupt = Literal["skip", "fail"]
Levels = Literal["increasing", "original"]


@dataclass(frozen=True)
class RandAugment:
    """Randomly chosen operations of one common strength (Cubuk et al. 2020)."""

    layers: int = 0
    """Operations per image, each drawn from all of them; 0: none."""
    levels: Levels = "increasing"
    """What strength means: a greater change in every operation, as in timm's increasing set of fifteen; or what it
    means in the authors' code, which big_vision uses: there posterise and solarise change less at greater strength, and
    Cutout (DeVries & Taylor 2017) is a sixteenth operation."""
    magnitude: float = 9.0
    """Strength from 0 to 10."""
    spread: float = 0.0
    """Standard deviation of the strength, which is clipped to 0 to 10."""
    probability: float = 1.0
    """Probability that an operation, once drawn, is applied."""

    def __post_init__(self) -> None:
        if self.layers < 0:
            raise VitportError(f"augment.randaugment.layers must be 0 or more operations; got {self.layers}.")
        if not 0 <= self.magnitude <= 10:
            raise VitportError(f"augment.randaugment.magnitude must be from 0 to 10; got {self.magnitude}.")
        if not 0 <= self.spread < float("inf"):
            raise VitportError(f"augment.randaugment.spread must be a finite 0 or more; got {self.spread}.")
        if not 0 <= self.probability <= 1:
            raise VitportError(f"augment.randaugment.probability must be from 0 to 1; got {self.probability}.")


@dataclass(frozen=True)
class Augmentation:
    """Changes to training images on the CPU; mixup and CutMix belong to the loss, on the device."""

    crop: Crop = "random_resized"
    """``random_resized``: a crop of random area and aspect ratio, resized to the model's size (Szegedy et al. 2015,
    section 6); ``resize_crop``: the image resized to cover that size, padded by 4 mirrored pixels, cropped at random
    (Touvron et al. 2022, DeiT III, section 3.3); ``shift``: the evaluation's crop, shifted by up to ``pad`` pixels,
    padded with black (He et al. 2016, section 4.2); ``none``: the evaluation's crop."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of a ``random_resized`` crop, as a share of the image's."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio, width over height, of a ``random_resized`` crop before it is resized."""
    pad: int = 4
    """Largest ``shift``, in pixels of the model's size."""
    flip: float = 0.5
    """Probability of a horizontal flip; 0 where it would change the class, as of digits."""
    randaugment: RandAugment = field(default_factory=RandAugment)
    three_augment: bool = False
    """One of greyscale, solarise and blur, with equal probability (Touvron et al. 2022, section 3.2); the paper adds a
    ``jitter`` of 0.3."""
    jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation, each uniform, in random order; 0: none."""
    erasing: float = 0.0
    """Probability that a rectangle is replaced by noise (Zhong et al. 2020)."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise VitportError(f"augment.scale must be two shares with 0 < low <= high <= 1; got {self.scale}.")
        low, high = self.ratio
        if not 0 < low <= high < float("inf"):
            raise VitportError(f"augment.ratio must be two aspect ratios with 0 < low <= high; got {self.ratio}.")
        if self.pad < 0:
            raise VitportError(f"augment.pad must be 0 pixels or more; got {self.pad}.")
        for name in ("flip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise VitportError(f"augment.{name} must be a probability from 0 to 1; got {getattr(self, name)}.")
        if not 0 <= self.jitter < float("inf"):
            raise VitportError(f"augment.jitter must be a finite 0 or more; got {self.jitter}.")
        if self.three_augment and self.randaugment.layers:
            raise VitportError(
                f"augment.three_augment and randaugment.layers={self.randaugment.layers} are alternatives: choose one."
            )


@dataclass(frozen=True)
class Data:
    """Where the images are, and what happens to them before the device sees them."""

    path: str = "digits"
    """A folder of class folders, optionally within train/ and val/; a folder, file or glob of tar shards, Parquet,
    Arrow or ArrayRecord files; a folder of IDX files (MNIST and its family); a numpy file ``.npz`` with ``images`` and
    ``labels``; ``hf://owner/name``; or ``digits`` for scikit-learn's."""
    validation: str | None = None
    """Path of the validation images, if not the validation split of ``path``."""
    holdout: float = 0.0
    """Share of each class's training images that is held out for validation, where ``path`` has no validation images;
    the same images for the same ``holdout_seed``."""
    holdout_seed: int = 0
    """Which images ``holdout`` takes."""
    labels: str | None = None
    """A table (CSV) with the image and the label of each row, for images in one folder; a path or address, or a name in
    ``path``."""
    validation_labels: str | None = None
    """A second table, of the validation images, if these are not rows of ``labels``; they lie in ``validation``, or in
    ``path``."""
    image_column: str | None = None
    """The tables' column of images, if it is not found by its values."""
    label_column: str | None = None
    """The tables' column of labels, if it is not found by its name."""
    label_separator: str | None = None
    """What separates several labels of an image in that column, such as a comma or a space; None: a vertical bar or a
    semicolon, where it has one."""
    range: tuple[float, float] | None = None
    """Values that become black and white in images of more than 8 bits a channel, such as 0 65535; None: they are
    refused."""
    cache: str | None = None
    """A folder on this machine's disk that keeps the images of tar shards, ArrayRecord files and image folders in a
    bucket once they were read; None: they are read from the bucket in every epoch."""
    cache_limit: int = 100_000_000_000
    """Most bytes of ``cache``, which several runs may share; the images that came first stay. Also of data in a bucket
    that must be copied: numpy, IDX and Arrow files."""
    workers: int = 0
    """Processes that decode and augment; 0: threads of the training process."""
    repeats: int = 1
    """How often each image is repeated in a row, with a new augmentation each time (Hoffer et al. 2020). The length of
    an epoch stays the same, so it holds only a share of the images."""
    balanced: bool = False
    """Take as many images of each class in an epoch, whose length stays the same: images of small classes come several
    times, of large ones only some."""
    corrupt: Corrupt = "skip"
    """Whether an image that cannot be read is skipped, and reported, or ends the run."""
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.validation_labels is not None and self.labels is None and self.validation is None:
            raise VitportError(
                f"data.validation_labels={self.validation_labels} has no place to look: give data.labels with it, "
                "or the folder of the validation images as data.validation."
            )
        of_table = self.image_column or self.label_column or self.label_separator
        if self.labels is None and self.validation_labels is None and of_table:
            raise VitportError(
                "data.image_column, data.label_column and data.label_separator are a table's: give it with data.labels."
            )
        if self.label_separator == "":
            raise VitportError('data.label_separator must be a character or more, such as " "; got nothing.')
        if self.range is not None and not -float("inf") < self.range[0] < self.range[1] < float("inf"):
            raise VitportError(f"data.range must be two numbers, the smaller one first; got {self.range}.")
        if not 0 <= self.holdout < 1:
            raise VitportError(f"data.holdout must be a share from 0 to below 1; got {self.holdout}.")
        if self.holdout_seed < 0:
            raise VitportError(f"data.holdout_seed must be 0 or more; got {self.holdout_seed}.")
        if self.cache_limit < 1:
            raise VitportError(f"data.cache_limit must be 1 byte or more; got {self.cache_limit}.")
        if self.workers < 0:
            raise VitportError(f"data.workers must be 0 processes or more; got {self.workers}.")
        if self.repeats < 1:
            raise VitportError(f"data.repeats must be 1 or more; got {self.repeats}.")
