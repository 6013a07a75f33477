"""Another image size, patch size or window of a Swin Transformer, with its tables of positions resized to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from conversion.checkpoint import Checkpoint
from conversion.tensors.offset_table import resize_offset_table
from conversion.tensors.patch_kernel import resize_patch_kernel
from conversion.tensors.position_table import resize_position_table
from vit_spec import Kind, SwinConfig, VitportError, parameters, segments
from vit_spec.swin.config import Windows
from vit_spec.swin.resizing import OffsetResize
from vit_spec.swin.windows import Windowing, windowings


def resized(
    checkpoint: Checkpoint,
    config: SwinConfig,
    *,
    image_size: int | tuple[int, int] | None,
    patch_size: int | None,
    window_size: int | tuple[int, int] | None,
    resize: str | None,
) -> Checkpoint:
    """See :func:`conversion.with_sizes`.

    Windows change where they are asked to, and where the window rule shrinks them to the new maps. Version 1's tables
    are resized to them; version 2 computes its bias for any window, and its offsets stay normalised by the old one.
    """
    changes = {
        "image_size": image_size,
        "patch_size": patch_size,
        "window_sizes": None if window_size is None else _all_stages(window_size, config.num_stages),
    }
    after = config.replace(**{name: value for name, value in changes.items() if value is not None})
    method = _method(checkpoint, resize)
    old, new = windowings(config), windowings(after)
    if after.version == 2:
        after = after.replace(pretrained_window_sizes=_pretrained(config, old, new))
    sized = replace(
        checkpoint, config=after, preprocessing=checkpoint.preprocessing.replace(size=after.image_size)
    )  # fmt: skip
    if after.image_size != config.image_size:
        sized = sized.changed(f"images of {_by(after.image_size)} pixels in place of {_by(config.image_size)}")
    sized = _kernel(sized, config, after)
    sized = _positions(sized, config, after)
    if _windows(new) == _windows(old):
        return sized
    said = f"windows of {_windows(new)} in place of {_windows(old)}"
    if after.version == 2:
        by = ", ".join(_by(window) for window in after.pretrained_window_sizes)
        return sized.changed(f"{said}, offsets normalised by pretrained_window_sizes {by} (0x0: the window's own)")
    return _tables(sized, after, old, new, method).changed(
        f"{said}, the tables of relative positions resized by {method}"
    )


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


def _all_stages(window: int | tuple[int, int], stages: int) -> Windows:
    return ((window, window) if isinstance(window, int) else window,) * stages


def _pretrained(config: SwinConfig, old: tuple[Windowing, ...], new: tuple[Windowing, ...]) -> Windows:
    """What offsets are normalised by stays the same; 0 where that is the window's own side."""
    return tuple(
        (0, 0)
        if (own := tuple(side or before for side, before in zip(sides, was.window, strict=True))) == now.window
        or (1 in own and own == was.window)
        else (own[0], own[1])
        for sides, was, now in zip(config.pretrained_window_sizes, old, new, strict=True)
    )


def _kernel(sized: Checkpoint, old: SwinConfig, config: SwinConfig) -> Checkpoint:
    if config.patch_size == old.patch_size:
        return sized
    (name,) = (it.name for it in parameters(config) if it.kind is Kind.CONV)
    params = sized.params.replacing(name, resize_patch_kernel(sized.params[name], config.patch_size))
    return replace(sized, params=params).changed(
        f"patches of {config.patch_size} pixels in place of {old.patch_size}, the kernel resized by pseudo-inverse"
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
        f"position table of {_by(grids[1])} in place of {_by(grids[0])} patches, resized by torch-bicubic"
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
    return ", ".join(_by(it.window) for it in found)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
