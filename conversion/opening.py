"""How to open weights whose file leaves open what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vit_spec import VitportError


@dataclass(frozen=True)
class Opening:
    """The choices of a user that a second reading of the same file needs too."""

    format: str | None = None
    """Name of a format or of a group of formats, instead of the recognised one."""
    weights_key: str | None = None
    """The entry to read where a file holds several sets of weights."""
    unreplicate: bool = False
    """Take one of the copies that ``jax.pmap`` keeps for each device, if all of them are equal."""
    config: str | Path | None = None
    """A JSON file that says what the weights are: fields of ``ViTConfig``, or transformers' or timm's config.json."""
    base: str | Path | None = None
    """The weights that an adapter changes, where its own adapter_config.json names none on this machine."""


class UnusedKeyError(VitportError):
    """A file that holds one set of weights was to be read under a key."""


AS_IT_IS = Opening()
"""Nothing is chosen: the file alone decides."""
