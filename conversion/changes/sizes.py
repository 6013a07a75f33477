"""Another image size or patch size, with the position table resized to fit."""

from __future__ import annotations

from dataclasses import replace

from conversion.checkpoint import Checkpoint
from conversion.tensors.patch_kernel import resize_patch_kernel
from conversion.tensors.position_table import resize_position_table
from vit_spec import Kind, ViTConfig, VitportError, parameters
from vit_spec.vit.config import PositionResize
from vit_spec.vit.margin import margin_in_words


def with_sizes(
    checkpoint: Checkpoint,
    *,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    resize: PositionResize | None = None,
) -> Checkpoint:
    """The checkpoint for images or patches of another size.

    The patch kernel is resized by FlexiViT's pseudo-inverse. If the grid of patches changes, the position table is
    resized to it.

    Args:
        image_size: pixels, a side or (height, width); ``None`` keeps the size.
        patch_size: pixels a side; ``None`` keeps the size.
        resize: method for the position table; ``None`` takes the one of the weights' family.

    Raises:
        VitportError: if the image is smaller than a patch, or ``resize`` is given without a size.
    """
    old = checkpoint.config
    if image_size is None and patch_size is None:
        if resize is not None:
            raise VitportError(f"resize={resize!r} has nothing to resize: give image_size or patch_size with it.")
        return checkpoint
    sizes = {"image_size": image_size, "patch_size": patch_size}
    config = old.replace(**{name: size for name, size in sizes.items() if size is not None})
    preprocessing = checkpoint.preprocessing.replace(size=config.image_size)
    sized = replace(checkpoint, config=config, preprocessing=preprocessing)
    if config.image_size != old.image_size:
        sized = sized.changed(f"images of {_by(config.image_size)} pixels in place of {_by(old.image_size)}")
    for note in margin_in_words(config) if config.margin != old.margin else ():
        sized = sized.changed(note)
    return _grid_resized(_patch_resized(sized, old), old, resize)


def _patch_resized(sized: Checkpoint, old: ViTConfig) -> Checkpoint:
    config = sized.config
    if config.patch_size == old.patch_size:
        return sized
    (name,) = (parameter.name for parameter in parameters(config) if parameter.kind is Kind.CONV)
    params = sized.params.replacing(name, resize_patch_kernel(sized.params[name], config.patch_size))
    return replace(sized, params=params).changed(
        f"patches of {config.patch_size} pixels in place of {old.patch_size}, the kernel resized by pseudo-inverse"
    )


def _grid_resized(sized: Checkpoint, old: ViTConfig, resize: PositionResize | None) -> Checkpoint:
    config = sized.config
    if config.pos_embed == "none" or config.grid_size == old.grid_size:
        return sized
    method = resize or config.pos_embed_resize
    (name,) = (parameter.name for parameter in parameters(config) if parameter.kind is Kind.TABLE)
    table = resize_position_table(
        sized.params[name],
        prefix=config.num_positioned_prefix_tokens,
        source_grid=old.grid_size,
        target_grid=config.grid_size,
        method=method,
    )
    return replace(sized, params=sized.params.replacing(name, table)).changed(
        f"position table of {_by(config.grid_size)} in place of {_by(old.grid_size)} patches, resized by {method}"
    )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
