"""The formats that files are recognised as and written in: every module ``conversion/formats/FAMILY/NAME.py`` that has
a ``FORMAT``, and those that a program registers."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from conversion.format import Format
from vit_spec import VitportError

FORMATS: dict[str, Format] = {}
"""Name → format, in the order in which files are tried; see ``Format.before``."""


def register_format(format: Format) -> None:
    """Add a format: from now on it is recognised, read, written and verified like every other.

    Raises:
        VitportError: if its name is taken, or no order of all formats agrees with its ``before``.
    """
    if format.name in FORMATS or format.name in groups():
        raise VitportError(f"A format or group named {format.name!r} exists already: choose another name.")
    ordered = _ordered([*FORMATS.values(), format])
    FORMATS.clear()
    FORMATS.update(ordered)


def unregister_format(name: str) -> None:
    """Remove a format.

    Raises:
        VitportError: if no format has that name.
    """
    if name not in FORMATS:
        raise VitportError(f"No format is named {name!r}: choose one of {', '.join(FORMATS)}.")
    del FORMATS[name]


def groups() -> dict[str, tuple[str, ...]]:
    """Names that stand for several formats, such as ``huggingface`` → the formats, in the order of ``FORMATS``.

    A format of that name belongs to the group itself.
    """
    named = {format.group for format in FORMATS.values()} - {""}
    return {group: tuple(name for name, format in FORMATS.items() if group in (format.group, name)) for group in named}


def _ordered(formats: list[Format]) -> dict[str, Format]:
    """The formats by name, each before those in its ``before``, otherwise in the order given."""
    ordered: dict[str, Format] = {}

    def place(format: Format, after: tuple[str, ...]) -> None:
        if format.name in after:
            raise VitportError(f"{' before '.join((format.name, *after))} is a cycle: change one of their `before`.")
        if format.name not in ordered:
            for other in formats:
                if format.name in other.before:
                    place(other, (format.name, *after))
            ordered[format.name] = format

    for format in formats:
        place(format, ())
    return ordered


def _found() -> Iterator[Format]:
    for family in pkgutil.iter_modules(__path__, f"{__name__}."):
        for module in pkgutil.iter_modules(importlib.import_module(family.name).__path__, f"{family.name}."):
            if (format := getattr(importlib.import_module(module.name), "FORMAT", None)) is not None:
                yield format


FORMATS.update(_ordered(list(_found())))
