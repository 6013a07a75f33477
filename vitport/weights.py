"""Weights read, and carried from one format to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import conversion
from conversion import load

if TYPE_CHECKING:
    from pathlib import Path

    from conversion import Reading
    from conversion.changes import ActivationChoice, Dtype, Fold, HeadChoice, PeriodChoice, PositionChoice
    from vit_parity import Certificate
    from vit_spec.swin.resizing import OffsetResize, WindowSize
    from vit_spec.vit.config import PositionResize

__all__ = ["Converted", "convert", "load"]


@dataclass(frozen=True)
class Converted:
    """What :func:`convert` did."""

    checkpoint: conversion.Checkpoint
    """The result, as read back."""
    notes: tuple[str, ...]
    """What was changed, and what the format does not hold, in sentences."""
    certificate: Certificate | None
    """What the verification found; ``None`` where none was asked for."""


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: str,
    verify: bool = False,
    overwrite: bool = False,
    against: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    window_size: WindowSize | None = None,
    resize: PositionResize | OffsetResize | None = None,
    positions: PositionChoice = "keep",
    num_classes: int | None = None,
    head: HeadChoice | None = None,
    fold: tuple[Fold, ...] = (),
    periods: PeriodChoice = "keep",
    dtype: Dtype | None = None,
    activation: ActivationChoice | None = None,
    **reading: Unpack[Reading],
) -> Converted:
    """Convert weights to another format, and verify on request that the result computes the same.

    >>> done = vitport.convert("deit.pth", "deit.safetensors", to="timm", verify=True)
    >>> done.certificate.passed
    True

    Args:
        src: a file or folder of any known format, or ``hf://owner/name[@revision]``.
        dst: the file or folder to write.
        to: the format to write, such as ``timm``, ``flax`` or ``huggingface``.
        verify: run source and result side by side in both frameworks, block by block. A result that differs by more
            than rounding raises nothing: look at ``certificate.passed``.
        overwrite: replace the destination if it is a file of weights, or a folder of nothing but what ``to`` writes.
        against: ``MODULE:FUNCTION`` of the source's own PyTorch module, to verify against; it is run.
        image_size: pixels, a side or (height, width); the position table is resized to it. Where nothing else says the
            size of a table that is not square, it states that.
        patch_size: side of a patch in pixels; the patch kernel is resized to it.
        window_size: tokens, a side or (height, width), of all stages of a Swin Transformer, or a tuple of one for each;
            tables are resized to it.
        resize: method for the tables of positions; ``None`` takes the one of the weights' family.
        positions: which tokens the position table is to have rows for.
        num_classes: classes of the head; where the weights have another number, ``head`` says what to do.
        head: ``keep`` it, ``drop`` it for features, or start one of zeros (``zero``).
        fold: factors to multiply into the layers beside them, for formats that have no place for them: the layer scale
            (``layer-scale``), an unusual scale of attention (``qk-scale``). Products are rounded once.
        periods: ``theta`` takes its periods of rotary positions in place of a file's own, for formats without them.
        dtype: cast every tensor to the nearest value of this type.
        activation: the form of GELU to write, where the destination's readers run the other one by default.
        reading: what the source leaves open, as of :func:`load`.

    Raises:
        VitportError: if the source cannot be read, a change is impossible or cannot be verified, or the destination
            exists or cannot be written.
    """
    changes = conversion.Changes(
        image_size=image_size,
        patch_size=patch_size,
        window_size=window_size,
        resize=resize,
        positions=positions,
        num_classes=num_classes,
        head=head,
        fold=fold,
        periods=periods,
        dtype=dtype,
        activation=activation,
    )
    if verify:
        from vit_parity import check_verifiable

        size = {"image_size": image_size}
        check_verifiable(changes, lambda: conversion.load(src, if_unstated=size, **reading))
    done = conversion.convert(src, dst, to=to, changes=changes, overwrite=overwrite, **reading)
    if not verify:
        return Converted(done.result, done.notes, None)
    from vit_parity import verify_conversion

    return Converted(done.result, done.notes, verify_conversion(done, against=against))
