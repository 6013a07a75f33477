"""Very many names in one bytes object, because every worker gets a copy of a source."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Names:
    """A list of file names, concatenated as UTF-8 with surrogate escapes."""

    data: bytes
    ends: np.ndarray
    """int64 (n + 1,): where in ``data`` each name begins, and where the last ends."""

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """Packs the names, in the same order."""
        found = [os.fsencode(name) for name in names]
        return cls(b"".join(found), np.cumsum([0, *map(len, found)], dtype=np.int64))

    def __getitem__(self, at: int) -> str:
        return os.fsdecode(self.data[self.ends[at] : self.ends[at + 1]])
