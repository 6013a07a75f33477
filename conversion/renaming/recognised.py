"""A stranger's file as if its format had been recognised."""

from __future__ import annotations

from pathlib import Path

from conversion.format import Format
from conversion.identify.recognise import Recognised
from conversion.renaming.names import Renaming
from conversion.renaming.rules_file import read_rules
from conversion.tensors.table import TensorTable


def renamed(table: TensorTable, path: str | Path) -> Recognised:
    """The tensors with the rules that read them.

    The format has no second reading, so only the stranger's own module can verify a conversion.

    Raises:
        VitportError: if the file of rules cannot be understood.
    """
    rules = read_rules(path)
    found = Format(
        name=f"rules of {path}",
        summary=f"names of the user's own, read by {path}",
        names=Renaming(rules),
        signature=(),
        either_order="block" not in rules.facts,
        conventions=rules.facts,
    )
    return Recognised(found, table, ())
