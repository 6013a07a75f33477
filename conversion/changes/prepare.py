"""A checkpoint made ready for one model: picture size and head as asked for. ``create_model`` of both frameworks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conversion.changes.head import head_names
from conversion.changes.sizes import with_sizes
from conversion.checkpoint import Checkpoint
from conversion.load import load
from conversion.tensors.check import check_complete
from vit_spec import ViTConfig
from vit_spec.vit.config import PositionResize


def prepare(
    name_or_config: str | ViTConfig | None,
    *,
    weights: str | Path | Checkpoint,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: PositionResize | None = None,
) -> Checkpoint:
    """Load weights and fit them to what the caller asks for.

    What the weights show by their shapes, and what their file says, wins over the name. A picture size other than
    theirs has the position table resized; a number of classes other than theirs drops their head, so that
    ``head.*`` is absent and the caller starts a new one.

    Args:
        name_or_config: for facts that the weights do not tell.
        weights: a path, or a checkpoint already loaded.
        num_classes: classes of the model; ``None`` keeps the weights' own head, 0 gives features.
        image_size: pixels of the model's pictures, a side or (height, width); ``None`` keeps the weights' own.
        resize: method for the position table; ``None`` takes the one of the weights' family.

    Raises:
        VitportError: if the weights cannot be read, or tensors are missing, surplus or misshapen. Where
            ``num_classes`` is given there need be no head.
    """
    if isinstance(weights, Checkpoint):
        checkpoint = weights
        _check(checkpoint, num_classes)
    else:
        checkpoint = load(weights, model=name_or_config)
    checkpoint = with_sizes(checkpoint, image_size=image_size, resize=resize)
    return checkpoint if num_classes is None else with_num_classes(checkpoint, num_classes)


def _check(checkpoint: Checkpoint, num_classes: int | None) -> None:
    """What :func:`load` has checked of a file, of a checkpoint in memory, whatever its framework will be."""
    config, shapes = checkpoint.config, checkpoint.params.shapes
    if num_classes is not None and head_names(config).isdisjoint(shapes):
        config = config.replace(num_classes=0)
    check_complete(shapes, config)


def with_num_classes(checkpoint: Checkpoint, num_classes: int) -> Checkpoint:
    """The checkpoint for another number of classes: its head is dropped, unless it has that many already."""
    if num_classes == checkpoint.config.num_classes:
        return checkpoint
    params = checkpoint.params.without(head_names(checkpoint.config))
    return replace(checkpoint, config=checkpoint.config.replace(num_classes=num_classes), params=params, labels=None)
