"""Weights of any format, at an image size."""

from __future__ import annotations

from typing import Unpack

from conversion.changes.prepare import prepare
from conversion.checkpoint import Checkpoint
from conversion.load import load
from conversion.opening import Reading, UnusedKeyError


def load_sized(
    path: str, image_size: int | tuple[int, int] | None = None, *, several: bool = False, **reading: Unpack[Reading]
) -> Checkpoint:
    """The checkpoint at a path, fitted to images of a size, which also counts as theirs where nothing says it.

    Args:
        path: as of :func:`conversion.load`.
        image_size: pixels, a side or (height, width); ``None`` keeps the weights' own.
        several: whether the options are those of several files, so that one with a single set of weights is read
            without ``weights_key``.
        reading: as of :func:`conversion.load`.
    """
    sizes = {} if image_size is None else {"image_size": image_size}
    try:
        checkpoint = load(path, if_unstated=sizes, **reading)
    except UnusedKeyError:
        if not several:
            raise
        others: Reading = {**reading, "weights_key": None}
        checkpoint = load(path, if_unstated=sizes, **others)
    return prepare(None, weights=checkpoint, image_size=image_size)
