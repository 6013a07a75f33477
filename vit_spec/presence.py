"""What the presence of parameters says about a config: derived from the list of parameters, not written down again."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from functools import cache

from vit_spec.errors import VitportError
from vit_spec.family import Config, family_of


def shown_options(names: Iterable[str], *bases: Config) -> dict[str, bool]:
    """The boolean fields that change which parameters there are, each true if a parameter is there that it adds.

    One block with the parameter is enough: if another lacks it, that is a missing tensor and not another model.

    Args:
        names: canonical names.
        bases: configs of one family. Each boolean field that adds parameters can be both true and false in one of them.
    """
    there = {_of_any_block(name) for name in names}
    return {field: not added.isdisjoint(there) for field, added in _added(bases).items()}


@cache
def _added(bases: tuple[Config, ...]) -> dict[str, frozenset[str]]:
    """Boolean field -> the parameters that a model has only if it is true."""
    fields = [field.name for field in dataclasses.fields(bases[0]) if isinstance(field.default, bool)]
    added = {field: frozenset[str]().union(*(_difference(base, field) for base in bases)) for field in fields}
    return {field: names for field, names in added.items() if names}


def _difference(base: Config, field: str) -> set[str]:
    try:
        with_it, without = base.replace(**{field: True}), base.replace(**{field: False})
    except VitportError:  # contradicts the rest of this base
        return set()
    return _names(with_it) - _names(without)


def _names(config: Config) -> set[str]:
    return {_of_any_block(parameter.name) for parameter in family_of(config).parameters(config)}


def _of_any_block(name: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", name)
