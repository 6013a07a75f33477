"""Weights of any format, at an image size."""

from __future__ import annotations

from conversion.changes.prepare import prepare
from conversion.checkpoint import Checkpoint
from conversion.containers import UnusedKeyError
from conversion.load import load


def load_sized(
    path: str,
    image_size: int | tuple[int, int] | None = None,
    *,
    model: str | None = None,
    format: str | None = None,
    weights_key: str | None = None,
    several: bool = False,
) -> Checkpoint:
    """The checkpoint at a path, fitted to images of a size.

    Args:
        path: as of :func:`conversion.load`, and so are ``model``, ``format`` and ``weights_key``.
        image_size: pixels, a side or (height, width); ``None`` keeps the weights' own.
        model: for facts that the file does not tell.
        format: instead of the recognised one.
        weights_key: the entry to read where a file holds several sets of weights.
        several: whether the options are those of several files, so that one with a single set of weights is read
            without the key.
    """
    try:
        checkpoint = load(path, format=format, model=model, weights_key=weights_key)
    except UnusedKeyError:
        if not several:
            raise
        checkpoint = load(path, format=format, model=model)
    return prepare(None, weights=checkpoint, image_size=image_size)
