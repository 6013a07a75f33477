"""A conversion verified; the requested changes are made to the reference too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conversion import Changes, Checkpoint, Conversion
from conversion.hub import local
from vit_parity.certificate import Certificate
from vit_parity.own_module import own_module
from vit_parity.verify import Head, Original, Requested, verify
from vit_spec import Config, VitportError
from vit_spec.reading import height_and_width


def check_verifiable(changes: Changes, read: Callable[[], Checkpoint] | None = None) -> None:
    """Refuse changes after which source and result cannot see the same image.

    Args:
        read: the source, which is asked for its image size if one is requested: its own size changes nothing.

    Raises:
        VitportError: for a new image size, patch size or window.
    """
    size = changes.image_size
    same = size is not None and read is not None and read().config.image_size == height_and_width(size, "image_size")
    sizes = {"image_size (--image-size)": None if same else size, "patch_size (--patch-size)": changes.patch_size}
    sizes["window_size (--window-size)"] = changes.window_size
    given = " and ".join(option for option, value in sizes.items() if value is not None)
    if given:
        raise VitportError(
            f"Verification (--verify) compares with the source as it is: verify first, and change {given} then."
        )


def verify_conversion(conversion: Conversion, *, against: str | None = None) -> Certificate:
    """Run source and result side by side in both frameworks; see :func:`vit_parity.verify`.

    Args:
        conversion: what was converted.
        against: ``MODULE:FUNCTION`` of the source's own PyTorch module, which is run in place of the file's names.

    Raises:
        VitportError: if the changes cannot be verified, or the source cannot be run apart from this project's models.
    """
    check_verifiable(conversion.changes, lambda: conversion.source)
    if conversion.renamed and against is None:
        raise VitportError(
            "--verify has nothing but your own rules to compare with: name your module with --against "
            "MODULE:FUNCTION, which is then run."
        )
    old, new = conversion.source.config, conversion.changed.config
    requested = Requested(
        head=_head(conversion),
        activation=_changed("activation", old, new),
        theta=conversion.changes.periods == "theta",
        dtype=conversion.changes.dtype,
        positions=_changed("pos_embed", old, new) is not None,
        folded=bool(conversion.changes.fold),
        notes=conversion.notes,
    )
    run = None if against is None else own_module(against, local(conversion.path), old)
    if run is not None and (requested.head != "same" or requested.activation or requested.dtype or requested.theta):
        raise VitportError(
            "--against compares with your module as it is: verify first, and change head, type or GELU then."
        )
    original = Original(local(conversion.path), conversion.source, conversion.opening, run)
    return verify(original, local(conversion.destination), conversion.result, requested)


def _changed(field: str, old: Config, new: Config) -> Any:
    """The new value of a field; ``None`` where it is the old one, or the family has no such field."""
    value = getattr(new, field, None)
    return None if value == getattr(old, field, None) else value


def _head(conversion: Conversion) -> Head:
    """What became of the source's head."""
    if conversion.changes.head == "zero":
        return "new"
    return "same" if conversion.changed.config.num_classes == conversion.source.config.num_classes else "dropped"
