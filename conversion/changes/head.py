"""The classifier: kept, dropped, or made anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.tensors.table import TensorTable
from vit_spec import VitportError, parameters

HeadChoice = Literal["keep", "drop", "zero"]

HEADS = ("head.", "head_dist.")
"""What the names of classifiers begin with."""


def with_head(checkpoint: Checkpoint, *, num_classes: int | None = None, head: HeadChoice | None = None) -> Checkpoint:
    """The checkpoint with the head that is asked for.

    Args:
        num_classes: classes that the result is meant to have. By itself it changes nothing: it must be the file's own
            number.
        head: ``keep`` the file's head, whatever its number of classes; ``drop`` it, so that the model gives features;
            or one of ``zero``, with ``num_classes`` (or as many as the file's) and weights and biases of zero.

    Raises:
        VitportError: if the numbers of classes differ and ``head`` does not say what to do, or the head asked for has
            no classes.
    """
    own = checkpoint.config.num_classes
    if head == "drop":
        return _dropped(checkpoint)
    if head == "zero":
        return _zero(checkpoint, own if num_classes is None else num_classes)
    if head is None and num_classes is not None and num_classes != own:
        raise VitportError(
            f"The weights have a head of {own} classes, not {num_classes}: say by head (--head) whether to keep it, "
            f"to drop it for features, or to put one of {num_classes} classes and zeros in its place (zero)."
        )
    if head not in (None, "keep"):
        raise VitportError(f"head={head!r} is unknown: choose one of keep, drop, zero.")
    return checkpoint


def _without_head(checkpoint: Checkpoint) -> TensorTable:
    return checkpoint.params.without({name for name in checkpoint.params if name.startswith(HEADS)})


def _dropped(checkpoint: Checkpoint) -> Checkpoint:
    own = checkpoint.config.num_classes
    if not own:
        return checkpoint
    config = checkpoint.config.replace(num_classes=0)
    dropped = replace(checkpoint, config=config, params=_without_head(checkpoint), labels=None)
    return dropped.changed(f"dropped the head of {own} classes")


def _zero(checkpoint: Checkpoint, num_classes: int) -> Checkpoint:
    if num_classes < 1:
        raise VitportError(
            f"A head of {num_classes} classes is none: give num_classes (--classes), or drop the head (--head drop)."
        )
    own = checkpoint.config.num_classes
    config = checkpoint.config.replace(num_classes=num_classes)
    body = _without_head(checkpoint)
    dtype = checkpoint.params.spec("head.weight" if own else "patch_embed.proj.weight")[1]
    fresh = {entry.name: np.zeros(entry.shape, dtype) for entry in parameters(config) if entry.name.startswith(HEADS)}
    params = TensorTable(body.tensors | TensorTable.of(fresh).tensors)
    labels = checkpoint.labels if num_classes == own else None
    before = f"the head of {own} classes" if own else "none"
    return replace(checkpoint, config=config, params=params, labels=labels).changed(
        f"a head of {num_classes} classes and zeros in place of {before}"
    )
