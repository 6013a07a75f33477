"""Checks that the configs of all families share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_type_hints

from vit_spec.errors import VitportError

C = TypeVar("C")
MOST_CLASSES, MOST_BLOCKS = 1 << 24, 10_000


@lru_cache
def field_types(config: type[Any]) -> Mapping[str, Any]:
    """Field → annotation, in the order of the fields."""
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def check_types(config: Any) -> None:
    """Refuse numbers, words and flags of another type than the field's; tuples are left to their own checks.

    Raises:
        VitportError: for the first field of a wrong type, or that is not finite.
    """
    for name, annotation in field_types(type(config)).items():
        value = getattr(config, name)
        allowed = tuple(kind for kind in (get_args(annotation) or (annotation,)) if isinstance(kind, type))
        number = float in allowed and isinstance(value, int)
        if tuple in (getattr(kind, "__origin__", None) for kind in (annotation, *get_args(annotation))):
            continue
        if (allowed and not (number or isinstance(value, allowed))) or (
            isinstance(value, bool) and bool not in allowed
        ):
            words = " or ".join("None" if kind is type(None) else kind.__name__ for kind in allowed)
            raise VitportError(f"{name}={value!r} has the wrong type: it must be {words}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise VitportError(f"{name}={value} must be finite.")


def check_choices(config: Any) -> None:
    """Refuse words that are not among a field's choices.

    Raises:
        VitportError: for the first of them.
    """
    for name, annotation in field_types(type(config)).items():
        choices = get_args(annotation)
        value = getattr(config, name)
        if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
            raise VitportError(f"{name}={value!r} is unknown: choose one of {', '.join(choices)}.")


def check_at_most(values: Mapping[str, int], most: int = 1 << 20) -> None:
    """Refuse numbers beyond what any model has, which would take for ever or all memory before anything else fails.

    Raises:
        VitportError: for the first of them.
    """
    for name, value in values.items():
        if value > most:
            raise VitportError(f"{name}={value} is too large: it must be at most {most}.")


def check_at_least(least: int, values: Mapping[str, int]) -> None:
    """Refuse numbers below a bound.

    Raises:
        VitportError: for the first of them.
    """
    for name, value in values.items():
        if value < least:
            words = "negative: it must be 0 or more" if least == 0 else f"too small: it must be at least {least}"
            raise VitportError(f"{name}={value} is {words}.")


def check_rates(config: Any) -> None:
    """Refuse drop rates outside [0, 1).

    Raises:
        VitportError: for the first of them.
    """
    for name in ("drop_rate", "attn_drop_rate", "drop_path_rate"):
        rate = getattr(config, name)
        if not 0.0 <= rate < 1.0:
            raise VitportError(f"{name} must be in [0, 1); got {rate}.")


def check_eps(name: str, eps: float) -> None:
    """Refuse an epsilon of a norm that is not positive.

    Raises:
        VitportError: naming the usual values.
    """
    if eps <= 0:
        raise VitportError(f"{name}={eps} is not positive: published models use 1e-6, 1e-5 or 1e-12.")


def replaced(config: C, changes: Mapping[str, Any]) -> C:
    """A copy with the named fields changed, validated again.

    Raises:
        VitportError: for an unknown field.
    """
    names = tuple(field_types(type(config)))
    unknown = sorted(set(changes) - set(names))
    if unknown:
        raise VitportError(
            f"{type(config).__name__} has no field {', '.join(unknown)}: its fields are {', '.join(names)}."
        )
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]
