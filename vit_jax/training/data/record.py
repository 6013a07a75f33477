"""Records, and the protocol of their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from vit_spec import VitportError

Split = Literal["train", "validation"]


class NoDataError(VitportError):
    """Nothing is at the path of a data set."""


class Record(NamedTuple):
    """One image as it is stored."""

    name: str
    """Identifies the image for people, such as its path."""
    label: int | np.ndarray
    """The class; or, where an image may have several, uint8 (classes,), 1 for each of its own."""
    image: bytes | np.ndarray
    """The bytes of an image file, or pixels, uint8 (H, W, C)."""


class Source(Protocol):
    """Random access to labelled images; small when pickled, because every worker gets a copy."""

    @property
    def name(self) -> str:
        """The path or name that it was opened by."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, at: int, /) -> Record: ...


def at_once(source: Source) -> int:
    """Images that are best read at the same time: many where each answer takes a while."""
    return getattr(source, "at_once", 1)


def about(source: Source, at: int) -> tuple[str, int | np.ndarray]:
    """The name and the label of an image, which is read only where its source does not know them without.

    Raises:
        VitportError: if it must be read, and cannot be; so does OSError.
    """
    if (known := getattr(source, "about", None)) is not None:
        return known(at)
    return source[at][:2]


@dataclass(frozen=True)
class Absent:
    """Stands for a million images that are elsewhere, where only what a step costs is asked."""

    count: int
    """Of classes, two or more."""
    name: str = "images that are not here"

    def __post_init__(self) -> None:
        if self.count < 2:
            raise VitportError(f"A data set has 2 classes or more; got {self.count}: give their number.")

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.count)))

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, at: int, /) -> Record:
        raise VitportError(f"Image {at} was asked for, and only the number of classes is known: open the data.")
