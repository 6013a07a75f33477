"""Images out of shards in a bucket: each by a request of its own, or, where all are small, from memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from conversion.store import Objects
from vit_jax.training.data.sources.kept import Kept
from vit_spec import VitportError

AT_ONCE = 32
"""Images of a batch that are asked for at the same time: each answer takes a while."""
SMALL = 64_000_000
"""Bytes of shards that are read at once and held in memory, in every process that reads: asking for each tiny image
would take longer than all else."""


class Ranges:
    """Reads parts of objects. Picklable; what is in memory is read again by each process.

    Args:
        shards: names of the objects.
        ends: of the last image in each, in bytes.
        kept: images that are on this machine's disk.
    """

    def __init__(self, objects: Objects, shards: Sequence[str], ends: Sequence[int], kept: Kept | None) -> None:
        self.objects, self._shards, self._ends, self._kept = objects, tuple(shards), tuple(ends), kept
        self._held: list[bytes] | None = None
        self._turn = threading.Lock()
        self._are_small = sum(ends) <= SMALL

    def __getstate__(self) -> dict[str, Any]:
        return {"objects": self.objects, "shards": self._shards, "ends": self._ends, "kept": self._kept}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)

    @property
    def at_once(self) -> int:
        """Images that are best read at the same time."""
        return 1 if self._are_small else AT_ONCE

    def read(self, at: int, shard: int, begin: int, size: int) -> bytes:
        """The image of this number.

        Raises:
            VitportError: if the object is gone, or the store cannot be read.
        """
        if self._are_small:
            return self._whole()[shard][begin : begin + size]
        data = None if self._kept is None else self._kept.read(at)
        if data is None:
            (data,) = self._asked([(shard, slice(begin, begin + size))])
            if self._kept is not None:
                self._kept.add(at, data)
        return data

    def _whole(self) -> list[bytes]:
        with self._turn:
            if self._held is None:
                ends = [(shard, slice(0, end)) for shard, end in enumerate(self._ends) if end]
                found = {shard: data for (shard, _), data in zip(ends, self._asked(ends), strict=True)}
                self._held = [found.get(shard, b"") for shard in range(len(self._shards))]
            return self._held

    def _asked(self, wanted: Sequence[tuple[int, slice]]) -> list[bytes]:
        return read_ranges(self.objects, [(self._shards[shard], part) for shard, part in wanted])


def read_ranges(objects: Objects, wanted: Sequence[tuple[str, slice]]) -> list[bytes]:
    """The bytes of ranges of objects, in this order; many requests are under way at once.

    Raises:
        VitportError: if an object is gone, or the store cannot be read.
    """
    found = []
    for (name, _), data in zip(wanted, objects.read_all(wanted), strict=True):
        if data is None:
            raise VitportError(f"{objects.address}/{name} was deleted: put it back, or run again.")
        found.append(data)
    return found
