"""Another image size, patch size or window of a Swin Transformer, with its tables of positions resized to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from conversion.changes.sizes import by
from conversion.checkpoint import Checkpoint
from conversion.tensors.offset_table import resize_offset_table
from conversion.tensors.position_table import resize_position_table
from vit_spec import Kind, SwinConfig, VitportError, parameters, segments
from vit_spec.swin.config import Windows
from vit_spec.swin.resizing import OffsetResize
from vit_spec.swin.windows import Windowing, windowings


def grid_resized(sized: Checkpoint[SwinConfig], old: SwinConfig, resize: str | None) -> Checkpoint[SwinConfig]:
    """The checkpoint, whose config has other images, patches or windows already, with its tables resized to them.

    Windows change where they are asked to, and where the window rule shrinks them to the new maps. Version 1's tables
    are resized to them; version 2 computes its bias for any window, and its offsets stay normalised by the old one.

    Args:
        old: the config before.
        resize: method for the tables of relative positions; ``None`` takes that of the code that the weights are for.

    Raises:
        VitportError: if no method of that name resizes such tables.
    """
    config = sized.config
    method = _method(sized, resize)
    before, after = windowings(old), windowings(config)
    sized = _positions(sized, old, config)
    if _windows(after) == _windows(before):
        return sized
    said = f"windows of {_windows(after)} in place of {_windows(before)}"
    if config.version == 2:
        config = config.replace(pretrained_window_sizes=_pretrained(old, before, after))
        sides = ", ".join(by(window) for window in config.pretrained_window_sizes)
        told = f"{said}, offsets normalised by pretrained_window_sizes {sides} (0x0: the window's own)"
        return replace(sized, config=config).changed(told)
    resized = _tables(sized, config, before, after, method)
    return resized.changed(f"{said}, the tables of relative positions resized by {method}")


def _method(checkpoint: Checkpoint, resize: str | None) -> OffsetResize:
    """The one asked for, or that of the code that the weights are for."""
    if resize is not None and resize not in get_args(OffsetResize):
        raise VitportError(
            f"resize={resize!r} resizes no table of relative positions: choose one of "
            f"{', '.join(get_args(OffsetResize))}."
        )
    from conversion.formats import FORMATS  # formats import the changes that help to hold a model

    found = FORMATS.get(checkpoint.provenance.format)
    usual: OffsetResize = "timm-geometric" if found is None else found.offset_resize
    known: dict[str, OffsetResize] = {method: method for method in get_args(OffsetResize)}
    return usual if resize is None else known[resize]


def _pretrained(config: SwinConfig, old: tuple[Windowing, ...], new: tuple[Windowing, ...]) -> Windows:
    """What offsets are normalised by stays the same; 0 where that is the window's own side."""
    return tuple(
        (0, 0)
        if (own := tuple(side or before for side, before in zip(sides, was.window, strict=True))) == now.window
        or (1 in own and own == was.window)
        else (own[0], own[1])
        for sides, was, now in zip(config.pretrained_window_sizes, old, new, strict=True)
    )


def _positions(sized: Checkpoint, old: SwinConfig, config: SwinConfig) -> Checkpoint:
    """The absolute position table, by torch's bicubic, as in Microsoft's loader."""
    grids = old.map_sizes[0], config.map_sizes[0]
    if not config.absolute_pos_embed or grids[0] == grids[1]:
        return sized
    (name,) = (it.name for it in parameters(config) if it.kind is Kind.TABLE)
    table = resize_position_table(
        sized.params[name], prefix=0, source_grid=grids[0], target_grid=grids[1], method="torch-bicubic"
    )
    return replace(sized, params=sized.params.replacing(name, table)).changed(
        f"position table of {by(grids[1])} in place of {by(grids[0])} patches, resized by torch-bicubic"
    )


def _tables(
    sized: Checkpoint, config: SwinConfig, old: tuple[Windowing, ...], new: tuple[Windowing, ...], method: OffsetResize
) -> Checkpoint:
    params = sized.params
    order = {segment: stage for stage, segment in enumerate(segments(config))}
    for it in parameters(config):
        if it.kind is Kind.OFFSETS and it.segment is not None:
            stage = order[it.segment]
            table = resize_offset_table(
                params[it.name], source=old[stage].window, target=new[stage].window, method=method
            )  # fmt: skip
            params = params.replacing(it.name, table)
    return replace(sized, params=params)


def _windows(found: tuple[Windowing, ...]) -> str:
    return ", ".join(by(it.window) for it in found)
