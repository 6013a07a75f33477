"""A checkpoint made ready for one model, as ``create_model`` of both frameworks is asked for it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversion.changes.channels import with_channels
from conversion.changes.head import head_names
from conversion.changes.sizes import with_sizes
from conversion.checkpoint import Checkpoint
from conversion.formats import FORMATS
from conversion.identify.given import with_own_names
from conversion.load import load
from conversion.tensors.check import check_complete
from vit_spec import Config, SwinConfig, VitportError, config_fields, family_module, parameters
from vit_spec.swin.resizing import OffsetResize
from vit_spec.vit.config import PositionResize

RATES = ("drop_rate", "attn_drop_rate", "drop_path_rate")
"""What training alone uses: they change nothing that the weights mean."""


def prepare(
    name_or_config: str | Config | None,
    *,
    weights: str | Path | Checkpoint,
    resize: PositionResize | OffsetResize | None = None,
    family_head: bool = False,
    **fields: Any,
) -> Checkpoint:
    """Load weights and fit them to what the caller asks for.

    What the weights show by their shapes, and what their file says, wins over the name; ``fields`` win over both. Each
    change is recorded in the checkpoint's notes. The weights are fitted

    - to ``image_size``, by resizing the position table, to ``patch_size``, by resizing the patch kernel, and to
      ``window_sizes``, by resizing the tables of relative positions;
    - to ``in_channels``, by :func:`conversion.with_channels`, with a warning;
    - to ``pool``, where they hold all that it needs; what it does not need is dropped;
    - to ``num_classes``: for another number than theirs their head is dropped, so that ``head.*`` is absent and the
      caller starts a new one.

    Any other field changes what the model computes with the same weights, and must not change their shapes.

    Args:
        name_or_config: for facts that the weights do not tell.
        weights: a path, or a checkpoint already loaded.
        resize: method for the tables of positions; ``None`` takes the one of the weights' family.
        family_head: let a new head on a backbone without one read what the family's own classifier reads, unless
            ``pool`` is given.
        fields: fields of the config, under their own names or timm's.

    Raises:
        VitportError: if the weights cannot be read, tensors are missing, surplus or misshapen, or a field does not fit
            them. Where ``num_classes`` is given there need be no head.
    """
    num_classes: int | None = fields.pop("num_classes", None)
    if isinstance(weights, Checkpoint):
        checkpoint = weights
        _check(checkpoint, num_classes)
    else:
        unstated = with_own_names(fields)
        checkpoint = load(weights, model=name_or_config, if_unstated=unstated, need_head=num_classes is None)
    fields = config_fields(checkpoint.config, fields)
    if family_head and num_classes and not checkpoint.config.num_classes:
        fields = _family_pool(checkpoint) | fields
    sizes = {name: fields.pop(name) for name in ("image_size", "patch_size") if name in fields}
    if isinstance(checkpoint.config, SwinConfig) and "window_sizes" in fields:
        sizes["window_size"] = checkpoint.config.replace(window_sizes=fields.pop("window_sizes")).window_sizes
    checkpoint = with_sizes(checkpoint, **sizes, resize=resize)
    channels = fields.pop("in_channels", checkpoint.config.in_channels)
    if channels != checkpoint.config.in_channels:
        checkpoint = with_channels(checkpoint, channels)
        warnings.warn(checkpoint.provenance.notes[-1], stacklevel=3)  # at the caller of create_model
    if num_classes is not None:
        checkpoint = with_num_classes(checkpoint, num_classes)
    family = family_module(__package__ or "", checkpoint.config)
    if "pool" in fields and family is not None:
        checkpoint = family.pooled(checkpoint, fields.pop("pool"))
    return _with_fields(checkpoint, fields)


def _family_pool(checkpoint: Checkpoint) -> dict[str, Any]:
    found = FORMATS.get(checkpoint.provenance.format)
    return {} if found is None or found.classifier_pool is None else {"pool": found.classifier_pool}


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
    return replace(
        checkpoint,
        config=checkpoint.config.replace(num_classes=num_classes),
        params=params,
        labels=None,
        several_labels=False,
    )


def _with_fields(checkpoint: Checkpoint, fields: dict[str, Any]) -> Checkpoint:
    """The checkpoint with fields that leave the shapes of its parameters as they are."""
    old = checkpoint.config
    config = old.replace(**fields)
    changed = {name: value for name, value in fields.items() if value != getattr(old, name)}
    if parameters(config) != parameters(old):
        asked = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        own = ", ".join(f"{name}={getattr(old, name)!r}" for name in changed)
        raise VitportError(
            f"{asked} does not fit the weights, which are of {own}: leave it out, or create the model without weights."
        )
    checkpoint = replace(checkpoint, config=config)
    for name, value in changed.items():
        if name not in RATES:
            checkpoint = checkpoint.changed(f"{name} {value} in place of {getattr(old, name)}, the weights as they are")
    return checkpoint
