"""Records, and the protocol of their sources."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np

Split = Literal["train", "validation"]


class Record(NamedTuple):
    """One image as it is stored."""

    name: str
    """Identifies the image for people, such as its path."""
    label: int
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
