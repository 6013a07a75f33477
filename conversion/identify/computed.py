"""Tensors that a format's code computes and its files do not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conversion.format import Format
from conversion.identify.resolve import Fact
from conversion.tensors.table import TensorTable
from vit_spec import Config
from vit_spec.reading import height_and_width


def with_computed(
    found: Format, table: TensorTable, told: Mapping[str, Fact], given: Mapping[str, Any], named: Config | None
) -> TensorTable:
    """The canonical table with such tensors added.

    Args:
        told: what the file itself states.
        given: what the caller states.
        named: the config that the caller gives.

    Raises:
        UnstatedError: if nobody states a size that they depend on.
    """
    if found.computed is None:
        return table
    size = told["image_size"].value if "image_size" in told else given.get("image_size", named and named.image_size)
    size = None if size is None else height_and_width(size, "image_size")
    return TensorTable({**table.tensors, **found.computed(table, size)})
