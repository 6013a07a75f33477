"""What every source of pictures gives."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np

Split = Literal["train", "validation"]


class Record(NamedTuple):
    """One picture as it is stored."""

    name: str
    """What a person finds it by, such as its path."""
    label: int
    image: bytes | np.ndarray
    """A picture file's bytes, or pixels uint8 (H, W, C)."""


class Source(Protocol):
    """Random access to labelled pictures; small when pickled, for every worker gets a copy."""

    @property
    def name(self) -> str:
        """What it was opened as."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, at: int, /) -> Record: ...
