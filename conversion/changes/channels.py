"""Another number of image channels."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from conversion.checkpoint import Checkpoint
from conversion.tensors.patch_kernel import patch_kernel_name, resize_channels


def with_channels(checkpoint: Checkpoint, in_channels: int) -> Checkpoint:
    """The checkpoint for images of another number of channels.

    The patch kernel follows :func:`resize_channels`, timm's rule. Mean and standard deviation of the preprocessing
    follow the kernel: repeated for more channels, averaged for one.

    Raises:
        VitportError: if ``in_channels`` is below 1, or the model norms pixels.
    """
    old = checkpoint.config.in_channels
    if in_channels == old:
        return checkpoint
    config = checkpoint.config.replace(in_channels=in_channels)
    name = patch_kernel_name(checkpoint.config, config)
    params = checkpoint.params.replacing(name, resize_channels(checkpoint.params[name], in_channels))
    preprocessing = checkpoint.preprocessing.replace(
        mean=_per_channel(checkpoint.preprocessing.mean, in_channels),
        std=_per_channel(checkpoint.preprocessing.std, in_channels),
    )
    adapted = replace(checkpoint, config=config, params=params, preprocessing=preprocessing)
    if in_channels == 1:
        return adapted.changed(f"images of 1 channel in place of {old}, the patch kernel summed over its channels")
    return adapted.changed(
        f"images of {in_channels} channels in place of {old}, the patch kernel's channels repeated and scaled by "
        f"{old}/{in_channels}"
    )


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return (fmean(values),) if channels == 1 else tuple(values[at % len(values)] for at in range(channels))
