"""What a change of sizes or of pooling means for the weights of a plain ViT."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np

from conversion.changes.sizes import by
from conversion.checkpoint import Checkpoint
from conversion.tensors.offset_table import resize_offset_table
from conversion.tensors.position_table import resize_position_table
from vit_spec import Kind, ViTConfig, VitportError, parameters, with_pool
from vit_spec.swin.resizing import OffsetResize
from vit_spec.vit.config import Pooling, PositionResize
from vit_spec.vit.relative import count_offsets


def grid_resized(sized: Checkpoint[ViTConfig], old: ViTConfig, resize: str | None) -> Checkpoint[ViTConfig]:
    """The checkpoint, whose config has another grid of patches already, with the position table resized to it.

    Args:
        old: the config before.
        resize: method; ``None`` takes the one of the weights' family.

    Raises:
        VitportError: if no method of that name resizes position tables.
    """
    config = sized.config
    if config.grid_size == old.grid_size:
        return sized
    if config.relative_bias:
        sized = _offsets_resized(sized, old, resize)
        resize = None  # it named a method for the biases
    if config.pos_embed == "none":
        return sized
    known: dict[str, PositionResize] = {method: method for method in get_args(PositionResize)}
    if resize is not None and resize not in known:
        raise VitportError(f"resize={resize!r} resizes no position table: choose one of {', '.join(known)}.")
    method = config.pos_embed_resize if resize is None else known[resize]
    (name,) = (parameter.name for parameter in parameters(config) if parameter.kind is Kind.TABLE)
    table = resize_position_table(
        sized.params[name],
        prefix=config.num_positioned_prefix_tokens,
        source_grid=old.grid_size,
        target_grid=config.grid_size,
        method=method,
    )
    return replace(sized, params=sized.params.replacing(name, table)).changed(
        f"position table of {by(config.grid_size)} in place of {by(old.grid_size)} patches, resized by {method}"
    )


def _offsets_resized(sized: Checkpoint[ViTConfig], old: ViTConfig, resize: str | None) -> Checkpoint[ViTConfig]:
    known: dict[str, OffsetResize] = {method: method for method in get_args(OffsetResize)}
    if resize is not None and resize not in known:
        raise VitportError(
            f"resize={resize!r} resizes no biases by relative position: choose one of {', '.join(known)}."
        )
    method, params = known[resize or "timm-geometric"], sized.params
    for name in (it.name for it in parameters(sized.config) if it.kind is Kind.OFFSETS):
        patches, others = np.split(params[name], [count_offsets(old.grid_size, class_token=False)])
        patches = resize_offset_table(patches, source=old.grid_size, target=sized.config.grid_size, method=method)
        params = params.replacing(name, np.concatenate([patches, others]))
    return replace(sized, params=params).changed(
        f"biases by relative position of {by(sized.config.grid_size)} in place of {by(old.grid_size)} patches, resized "
        f"by {method}"
    )


def pooled(checkpoint: Checkpoint[ViTConfig], pool: Pooling) -> Checkpoint[ViTConfig]:
    """The checkpoint for another pooling.

    Raises:
        VitportError: if the weights lack what it needs, or their head reads a vector of another width.
    """
    old = checkpoint.config
    if pool == old.pool:
        return checkpoint
    config = with_pool(old, pool)
    shapes = {entry.name: entry.shape for entry in parameters(config)}
    wider = [name for name, shape in checkpoint.params.shapes.items() if name in shapes and shapes[name] != shape]
    if wider:
        raise VitportError(
            f"pool={pool!r} gives a vector of {config.pooled_dim} numbers, but {wider[0]} of the weights reads "
            f"{old.pooled_dim}: create the model with num_classes=0, then call reset_classifier({old.num_classes})."
        )
    surplus = {name for name in checkpoint.params if name not in shapes}
    dropped = f"; dropped {', '.join(sorted(surplus))}" if surplus else ""
    changed = replace(checkpoint, config=config, params=checkpoint.params.without(surplus))
    return changed.changed(f"pool {pool} in place of {old.pool}{dropped}")
