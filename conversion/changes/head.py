"""The classifier: kept, dropped, or replaced by a new one."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.tensors.table import TensorTable
from vit_spec import Config, Stage, VitportError, parameters

HeadChoice = Literal["keep", "drop", "zero"]


def head_names(config: Config) -> set[str]:
    """Names of the parameters between features and logits."""
    return {parameter.name for parameter in parameters(config) if parameter.stage is Stage.CLASSIFIER}


def with_head(checkpoint: Checkpoint, *, num_classes: int | None = None, head: HeadChoice | None = None) -> Checkpoint:
    """The checkpoint with the requested head.

    Args:
        num_classes: expected number of classes of the result. Alone it changes nothing: it must equal the file's.
        head: ``keep`` the file's head, whatever its number of classes; ``drop`` it, so that the model returns features;
            or replace it by one with weights and biases of ``zero``, with ``num_classes`` or as many classes as the
            file's.

    Raises:
        VitportError: if the numbers of classes differ and ``head`` does not say what to do, or a head of no classes is
            requested.
    """
    own = checkpoint.config.num_classes
    if head == "drop":
        return _dropped(checkpoint)
    if head == "zero":
        return _zero(checkpoint, own if num_classes is None else num_classes)
    if head is None and num_classes is not None and num_classes != own:
        raise VitportError(
            f"The weights have a head of {own} classes, not {num_classes}: choose with head (--head) to keep it, to "
            f"drop it for features, or to replace it by {num_classes} classes of zeros (zero)."
        )
    if head not in (None, "keep"):
        raise VitportError(f"head={head!r} is unknown: choose one of keep, drop, zero.")
    return checkpoint


def _dropped(checkpoint: Checkpoint) -> Checkpoint:
    own = checkpoint.config.num_classes
    if not own:
        return checkpoint
    config = checkpoint.config.replace(num_classes=0)
    body = checkpoint.params.without(head_names(checkpoint.config))
    dropped = replace(checkpoint, config=config, params=body, labels=None, several_labels=False)
    return dropped.changed(f"dropped the head of {own} classes")


def _zero(checkpoint: Checkpoint, num_classes: int) -> Checkpoint:
    if num_classes < 1:
        raise VitportError(
            f"num_classes={num_classes} is too small for a head: give at least 1 (--classes), or drop the head "
            "(--head drop)."
        )
    own = checkpoint.config.num_classes
    config = checkpoint.config.replace(num_classes=num_classes)
    body = checkpoint.params.without(head_names(checkpoint.config))
    kernels = [parameter for parameter in parameters(checkpoint.config) if parameter.is_kernel]
    like = next((parameter for parameter in kernels if parameter.stage is Stage.CLASSIFIER), kernels[0])
    dtype = checkpoint.params.spec(like.name)[1]
    heads = head_names(config)
    fresh = {entry.name: np.zeros(entry.shape, dtype) for entry in parameters(config) if entry.name in heads}
    params = TensorTable(body.tensors | TensorTable.of(fresh).tensors)
    labels = checkpoint.labels if num_classes == own else None
    before = f"the head of {own} classes" if own else "none"
    return replace(checkpoint, config=config, params=params, labels=labels).changed(
        f"a head of {num_classes} classes and zeros in place of {before}"
    )
