"""What is read and how it is augmented: the part of a run's configuration that concerns data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vit_spec import VitportError

Crop = Literal["random_resized", "shift", "none"]
Corrupt = Literal["skip", "fail"]


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training picture on the CPU; mixup and CutMix belong to the loss, on the device."""

    crop: Crop = "random_resized"
    """A part of random area and shape, scaled to the model's size (Szegedy et al. 2015, section 6); the evaluation's
    cut shifted by up to ``pad`` pixels, black beyond its edges (He et al. 2016, section 4.2); or just that cut."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and largest share of the picture's area in a ``random_resized`` crop."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest width over height of a ``random_resized`` crop, in the picture's own pixels."""
    pad: int = 4
    """Pixels of a ``shift``, in the model's size."""
    flip: float = 0.5
    """Probability that left and right are exchanged: 0 where that changes the meaning, as of digits."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise VitportError(f"augment.scale={self.scale} are no shares of an area: give two, rising, above 0 to 1.")
        low, high = self.ratio
        if not 0 < low <= high < float("inf"):
            raise VitportError(f"augment.ratio={self.ratio} are no ratios of sides: give two, rising, above 0.")
        if self.pad < 0:
            raise VitportError(f"augment.pad={self.pad} counts pixels: give 0 or more.")
        if not 0 <= self.flip <= 1:
            raise VitportError(f"augment.flip={self.flip} is no probability: give a number from 0 to 1.")


@dataclass(frozen=True)
class Data:
    """Where the pictures are, and what happens to them before the device sees them."""

    path: str = "digits"
    """A folder of class folders, perhaps in train/ and val/; a folder of IDX files (MNIST and its family); or
    ``digits`` for scikit-learn's."""
    validation: str | None = None
    """Path of the validation pictures, if not those that ``path`` itself sets apart."""
    workers: int = 0
    """Processes that decode and augment; with 0, threads of the training process do."""
    corrupt: Corrupt = "skip"
    """What a picture that cannot be read does: it is left out, and named; or it ends the run."""
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise VitportError(f"data.workers={self.workers} counts processes: give 0 or more.")
