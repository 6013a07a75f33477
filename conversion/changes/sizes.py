"""Another image size, patch size or window, with the tables of positions resized to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.tensors.patch_kernel import patch_kernel_name, resize_patch_kernel
from vit_spec import Config, SwinConfig, VitportError, family_module, remarks
from vit_spec.swin.resizing import OffsetResize, WindowSize
from vit_spec.vit.config import PositionResize


def with_sizes(
    checkpoint: Checkpoint,
    *,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    window_size: WindowSize | None = None,
    resize: PositionResize | OffsetResize | None = None,
) -> Checkpoint:
    """The checkpoint for images, patches or windows of another size.

    The patch kernel is resized by FlexiViT's pseudo-inverse. If the grid of patches changes, the position table is
    resized to it; if windows change, so are a Swin Transformer's tables of relative positions.

    Args:
        image_size: pixels, a side or (height, width); ``None`` keeps the size.
        patch_size: pixels a side; ``None`` keeps the size.
        window_size: windows of a Swin Transformer, see :data:`WindowSize`; its window rule still applies where maps are
            smaller. ``None`` keeps the windows.
        resize: method for the tables; ``None`` takes the one of the weights' family.

    Raises:
        VitportError: if the image is smaller than a patch, the model norms the pixels of patches of another size, or
            ``resize`` is given without a size.
    """
    old = checkpoint.config
    if image_size is None and patch_size is None and window_size is None:
        if resize is not None:
            raise VitportError(
                f"resize={resize!r} has nothing to resize: give image_size, patch_size or window_size with it."
            )
        return checkpoint
    sizes: dict[str, Any] = {"image_size": image_size, "patch_size": patch_size}
    if window_size is not None:
        sizes["window_sizes"] = _of_stages(window_size, old)
    config = old.replace(**{name: size for name, size in sizes.items() if size is not None})
    preprocessing = checkpoint.preprocessing.replace(size=config.image_size)
    sized = replace(checkpoint, config=config, preprocessing=preprocessing)
    if config.image_size != old.image_size:
        sized = sized.changed(f"images of {by(config.image_size)} pixels in place of {by(old.image_size)}")
    for note in remarks(config) if remarks(config) != remarks(old) else ():
        sized = sized.changed(note)
    sized = _patch_resized(sized, old)
    family = family_module(__package__ or "", config)
    return sized if family is None else family.grid_resized(sized, old, resize)


def _patch_resized(sized: Checkpoint, old: Config) -> Checkpoint:
    config = sized.config
    if config.patch_size == old.patch_size:
        return sized
    name = patch_kernel_name(old, config)
    params = sized.params.replacing(name, resize_patch_kernel(sized.params[name], config.patch_size))
    return replace(sized, params=params).changed(
        f"patches of {config.patch_size} pixels in place of {old.patch_size}, the kernel resized by pseudo-inverse"
    )


def _of_stages(window: WindowSize, config: Config) -> tuple[Any, ...]:
    if not isinstance(config, SwinConfig):
        raise VitportError(f"window_size={window} is for Swin Transformers, but the weights are of another model.")
    if isinstance(window, int) or (len(window) == 2 and all(isinstance(side, int) for side in window)):
        return (window,) * config.num_stages
    return window


def by(size: tuple[int, int]) -> str:
    """Height and width in words."""
    return f"{size[0]}x{size[1]}"
