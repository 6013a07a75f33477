"""Which model a table of tensors is: from its shapes, then from what the file says, then from what the caller names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from conversion.identify.family import identifier
from conversion.identify.given import OPTIONS, check_facts
from conversion.tensors.table import Shapes
from vit_spec import Config, Model, UnstatedError, VitportError, field_values, list_models, parameters
from vit_spec.family import FAMILIES

SHAPES = "the tensors' shapes"
"""The origin of facts that shapes show."""

_ANY = {"num_heads": 1, "activation": "gelu", "norm_eps": 1e-6, "pool": "token", "norm": "layernorm"}
"""A value for each of the fields on which no parameter's name depends, but those of a pool."""


@dataclass(frozen=True)
class Fact:
    """A value of a config field, and in words where it comes from."""

    value: Any
    origin: str


def resolve_config(
    family: str,
    shapes: Shapes,
    told: Mapping[str, Fact],
    named: Config | None,
    named_by: str,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Config, dict[str, str]]:
    """The model's config, and for each field where its value comes from.

    Args:
        family: of the format that the file is in.
        shapes: canonical name → shape.
        told: config fields that the file itself states.
        named: the config that the caller gave; its fields count where neither shapes nor the file decide.
        named_by: how the caller gave it, in words.
        given: config fields that the caller stated one by one; they count before ``named``.

    Raises:
        UnstatedError: if a field that changes outputs and that no shape shows is stated nowhere. The message lists the
            registered models that have these shapes.
        VitportError: if a given field contradicts the file, or the caller names a model of another family.
    """
    if named is not None and named.family != family:
        raise VitportError(
            f"The tensors are of the family {family}, but {named_by} is of the family {named.family}: leave the name "
            "out (--model), or name the model that they are."
        )
    own, kind = identifier(family), FAMILIES[family].config
    stated = {name: fact.value for name, fact in told.items()}
    known = (field_values(named) if named else {}) | dict(given) | stated
    shown = own.facts_from_shapes(shapes, known)
    if given.get("pool") == "map" != shown.get("pool"):
        raise VitportError("pool='map' (--pool) contradicts the file, which has no attention pool: leave it out.")
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in (field.name for field in dataclasses.fields(kind)):
        if name in shown and not (name in known and known[name] == shown[name]):
            values[name], origins[name] = shown[name], SHAPES
        elif name in told:
            values[name], origins[name] = told[name].value, told[name].origin
        elif name in given:
            values[name], origins[name] = given[name], "the caller"
        elif named:
            values[name], origins[name] = getattr(named, name), named_by
        elif name in shown:
            values[name], origins[name] = shown[name], SHAPES
    for name, value in own.usual(values).items():
        if name not in values:
            values[name], origins[name] = value, "nowhere, and it has no effect"
    unstated = [name for name in own.NEVER_GUESSED if name not in values]
    if unstated:
        options = "".join(f"{OPTIONS[name]}, " for name in unstated if name in OPTIONS)
        raise UnstatedError(
            f"The file does not say its {', '.join(unstated)}, and shapes do not show them: name the model "
            f"(--model, or the first argument of create_model), or state them ({options}--config FILE, or "
            f"facts=){_candidates(family, shapes)}.",
            unstated,
        )
    try:
        config = kind.from_dict(values)
    except VitportError as error:
        if named is None:
            raise
        raise VitportError(f"{named_by[:1].upper()}{named_by[1:]} does not fit the tensors: {error}") from error
    check_facts(given, config, origins)
    return config, origins


def surplus_names(
    unstated: UnstatedError, family: str, shapes: Shapes, told: Mapping[str, Fact], given: Mapping[str, Any]
) -> list[str]:
    """Names that no model of these shapes has, whatever the unstated fields are: no answer would make the file fit.

    Args:
        unstated: what :func:`resolve_config` raised for these shapes and facts.
        family: of the format that the file is in.
        shapes: canonical name → shape.
        told: config fields that the file itself states.
        given: config fields that the caller stated.
    """
    if not set(unstated.fields) <= set(_ANY):
        return []
    names = set(shapes)
    for pool in ("token", "avg"):
        guess = {name: _ANY[name] for name in unstated.fields} | ({"pool": pool} if "pool" in unstated.fields else {})
        try:
            config, _ = resolve_config(family, shapes, told, None, "", {**given, **guess})
        except VitportError:
            return []
        names -= {parameter.name for parameter in parameters(config)}
    return [name for name in shapes if name in names]


def _candidates(family: str, shapes: Shapes) -> str:
    changed = identifier(family).CHANGED_BY_FINE_TUNING

    def body(table: Shapes) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in table.items() if name.partition(".")[0] not in changed}

    mine, models = body(shapes), (model for model in list_models() if model.config.family == family)
    fitting = [model.name for model in models if body(_shapes(model)) == mine]
    return f"; these fit: {', '.join(fitting)}" if fitting else "; none of the registered models has these shapes"


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {parameter.name: parameter.shape for parameter in parameters(model.config)}
