"""scikit-learn's handwritten digits: a data set that needs no network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vit_jax.training.data.record import Record, Split
from vit_spec import VitportError

VALIDATION_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Digits:
    """Some of the 1,797 digits of 8 x 8 pixels."""

    name: str
    images: np.ndarray
    """uint8 (n, 8, 8, 1), with the sixteen levels scaled to 0 … 255 as in a PNG file."""
    labels: np.ndarray
    numbers: np.ndarray
    """Indices into scikit-learn's table."""
    classes: tuple[str, ...] = tuple("0123456789")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int, /) -> Record:
        return Record(f"digits[{self.numbers[at]}]", int(self.labels[at]), self.images[at])


def open_digits(split: Split) -> Digits:
    """A stratified fifth is held out for validation: the same images for every seed.

    Raises:
        VitportError: without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise VitportError("The data set digits comes with scikit-learn: pip install scikit-learn.") from error
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) * (255 / 16)).round().astype(np.uint8)
    halves = train_test_split(np.arange(len(labels)), test_size=VALIDATION_SHARE, random_state=0, stratify=labels)
    numbers = np.asarray(halves[split == "validation"])
    return Digits(f"digits ({split})", images[numbers], labels[numbers].astype(np.int32), numbers)
