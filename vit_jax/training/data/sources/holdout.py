"""A share of the training images, held out for validation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vit_jax.training.data.record import Record, Source, about, at_once
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

    def about(self, at: int) -> tuple[str, int | np.ndarray]:
        """An image's name and label."""
        return about(self.whole, int(self.rows[at]))

    def __getitem__(self, at: int, /) -> Record:
        return self.whole[int(self.rows[at])]


def held_out(train: Source, share: float, seed: int) -> tuple[Part, Part]:
    """The training images that stay, and those for validation: of each class the share, rounded, but one at least, and
    never all. The choice depends on the seed, the number of images and their labels alone. An image of several labels
    counts as one of its rarest.

    Raises:
        VitportError: if a class has a single image, which is trained on where images have several labels.
    """
    labels = labels_of(train)
    several = labels.ndim == 2
    if several:
        labels = _rarest(labels)
    rng = np.random.default_rng((seed, _HOLDOUT))
    taken = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) == 1 and several:
            continue
        if len(rows) == 1:
            raise VitportError(
                f"{train.name} has a single image of the class {train.classes[label]}, which data.holdout cannot hold "
                "out and train on: add some, or remove the class."
            )
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        taken[rng.permutation(rows)[:count]] = True
    if not taken.any():
        raise VitportError(f"{train.name} has too few images of each class to hold any out: add some.")
    return (
        Part(train, f"{train.name} (less what is held out)", np.flatnonzero(~taken)),
        Part(train, f"{train.name} (held out)", np.flatnonzero(taken)),
    )


def _rarest(labels: np.ndarray) -> np.ndarray:
    """(n, classes) -> (n,): of each image's labels the one that the fewest images have; -1 without any."""
    counts = np.where(labels, labels.sum(axis=0, dtype=np.int64), len(labels) + 1)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), -1)


def are_several(source: Source) -> bool:
    """Whether an image may have several labels."""
    if (whole := getattr(source, "whole", None)) is not None:
        return are_several(whole)  # whose labels are not read for it
    return getattr(getattr(source, "labels", None), "ndim", 1) == 2


def labels_of(source: Source) -> np.ndarray:
    """The label of each image, (n,), read from the images only where the source has no list of them; uint8
    (n, classes) where an image may have several."""
    known = getattr(source, "labels", None)
    if known is not None:
        return known
    with ThreadPoolExecutor(at_once(source)) as pool:
        return np.array([label for _, label in pool.map(lambda at: about(source, at), range(len(source)))], np.int32)
