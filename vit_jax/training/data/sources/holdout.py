"""A share of the training images, held out for validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vit_jax.training.data.record import Record, Source, at_once
from vit_spec import VitportError

_HOLDOUT = 2
"""Second word of its seeds, beside those of order and augmentation."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some images of another source, in its order."""

    whole: Source
    name: str
    rows: np.ndarray
    """Their numbers in the whole, ascending."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.whole.classes

    @property
    def labels(self) -> np.ndarray:
        return labels_of(self.whole)[self.rows]

    @property
    def at_once(self) -> int:
        return at_once(self.whole)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int, /) -> Record:
        return self.whole[int(self.rows[at])]


def held_out(train: Source, share: float, seed: int) -> tuple[Part, Part]:
    """The training images that stay, and those for validation: of each class the share, rounded, but one at least, and
    never all. The choice depends on the seed, the number of images and their labels alone.

    Raises:
        VitportError: if a class has a single image.
    """
    labels = labels_of(train)
    rng = np.random.default_rng((seed, _HOLDOUT))
    taken = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) == 1:
            raise VitportError(
                f"{train.name} has a single image of the class {train.classes[label]}, which data.holdout cannot hold "
                "out and train on: add some, or remove the class."
            )
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        taken[rng.permutation(rows)[:count]] = True
    return (
        Part(train, f"{train.name} (less what is held out)", np.flatnonzero(~taken)),
        Part(train, f"{train.name} (held out)", np.flatnonzero(taken)),
    )


def labels_of(source: Source) -> np.ndarray:
    """The label of each image, (n,), read from the images only where the source has no list of them."""
    known = getattr(source, "labels", None)
    return np.array([source[at].label for at in range(len(source))], np.int32) if known is None else known
