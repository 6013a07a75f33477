"""What a family's tensors show, in the module of this folder that is named after the family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from conversion.tensors.table import Shapes
from vit_spec import Config, needed_module
from vit_spec.family import FAMILIES

HIDDEN = 1
"""Width of the layer before the head in ``Identifier.EVERY_PARAMETER``, by which it is known."""


class Identifier(Protocol):
    """Such a module."""

    NEVER_GUESSED: tuple[str, ...]
    """Config fields that change outputs and that no shape shows: they must be stated somewhere."""
    CHANGED_BY_FINE_TUNING: frozenset[str]
    """First components of names whose shapes fine-tuning changes."""
    REFUSED: Mapping[str, str]
    """Endings of names that show models which resemble the family's but do not belong to it → what they are."""
    EVERY_PARAMETER: tuple[Config, ...]
    """Configs that have every parameter outside the blocks between them."""
    HEAD_WIDTHS: tuple[int, ...]
    """How many times the width of the first tokens a head may read."""

    def sizes_from_shapes(self, shapes: Shapes) -> dict[str, Any]:
        """The config fields that canonical names and shapes decide whatever else is known."""
        ...

    def facts_from_shapes(self, shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
        """The config fields that canonical names and shapes decide, given those that are known from elsewhere."""
        ...

    def usual(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Config fields that need not be stated, because they have no effect in a model with these values."""
        ...

    def check_named(self, name: str, named: Any, config: Any, any_head: bool) -> None:
        """Refuse a registered name that has the sizes of the tensors and still is another model's.

        Args:
            any_head: whether a head needs no check, as one in this project's own record, or one that is not used.

        Raises:
            VitportError: with the difference.
        """
        ...


def identifier(family: str) -> Identifier:
    """The module of a family."""
    found = needed_module("conversion.identify", FAMILIES[family].config, "are not recognised by their tensors yet")
    return cast(Identifier, found)
