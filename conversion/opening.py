"""How to open weights whose file leaves open which of its arrays are the model's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Opening:
    """The choices of a user that concern arrays and names; facts about the model are none of them."""

    format: str | None = None
    """Name of a format or of a group of formats, instead of the recognised one."""
    weights_key: str | None = None
    """The entry to read where a file holds several sets of weights."""
    unreplicate: bool = False
    """Take one of the copies that ``jax.pmap`` keeps for each device, if all of them are equal."""


AS_IT_IS = Opening()
"""Nothing is chosen: the file alone decides."""
