"""How to read weights whose files leave something open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

from vit_spec import Config, VitportError


class Reading(TypedDict, total=False):
    """Arguments of :func:`conversion.load`, described there, that whatever else reads weights passes on to it."""

    format: str | None
    model: str | Config | None
    weights_key: str | None
    unreplicate: bool
    config: str | Path | None
    base: str | Path | None
    facts: Mapping[str, Any] | None
    norm_first: bool | None
    rename: str | Path | None


@dataclass(frozen=True)
class Opening:
    """Of these choices, the ones that a second reading of the same file needs too."""

    format: str | None = None
    weights_key: str | None = None
    unreplicate: bool = False
    config: str | Path | None = None
    base: str | Path | None = None

    @classmethod
    def of(cls, reading: Reading) -> Opening:
        """What of ``reading`` concerns the opening."""
        return cls(**{it.name: reading[it.name] for it in fields(cls) if it.name in reading})


class UnusedKeyError(VitportError):
    """A file that holds one set of weights was to be read under a key."""


AS_IT_IS = Opening()
"""Nothing is chosen: the file alone decides."""
