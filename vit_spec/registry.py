"""All families, and their named models under timm's names (those of its ``create_model``, without the weight tag)."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from vit_spec.errors import VitportError
from vit_spec.family import FAMILIES, Config, config_fields
from vit_spec.model import Model
from vit_spec.swin.family import SWIN
from vit_spec.vit.family import VIT

FAMILIES |= {family.name: family for family in (VIT, SWIN)}


@cache
def _registry() -> dict[str, Model]:
    return {model.name: model for family in FAMILIES.values() for model in family.models()}


def get_model(name: str) -> Model:
    """The named model.

    Raises:
        VitportError: for an unknown name, with the nearest known ones; for a model that is not implemented, with the
            reason.
    """
    for family in FAMILIES.values():
        if reason := family.unsupported().get(name):
            raise VitportError(f"{name} is not supported: {reason}; choose another name.")
    registry = _registry()
    if name not in registry:
        near = _near(name.rpartition("/")[2].partition(".")[0].lower())
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise VitportError(f"No model is named {name!r}: {hint}`vitport models` lists the {len(registry)} names.")
    return registry[name]


def _near(name: str) -> list[str]:
    """Known names that are spelled like this one. Of another architecture, which a word of it says, there is none."""
    words = re.findall(r"[a-z]\w*?(?=[_\W]|$)", name)
    known = _registry() if words else ()
    alike = [it for it in known if it.split("_")[0] == words[0] and all(_is_word(word, it) for word in words)]
    return difflib.get_close_matches(name, alike, n=3, cutoff=0.5)


def _is_word(word: str, known: str) -> bool:
    return bool(difflib.get_close_matches(word, known.split("_"), n=1, cutoff=0.75))


def list_models(pattern: str = "*") -> list[Model]:
    """Models whose name matches a shell pattern, or, if it has no wildcard, contains it."""
    wildcard = pattern if any(char in pattern for char in "*?[") else f"*{pattern}*"
    return [model for name, model in _registry().items() if fnmatch.fnmatch(name, wildcard)]


def get_config(name_or_config: str | Config | None, fields: Mapping[str, Any]) -> Config:
    """The config of a new model: a named model's, or the given one, with some fields changed.

    Args:
        fields: by their own names or other software's (:func:`vit_spec.config_fields`).

    Raises:
        VitportError: for an unknown name, or fields that contradict each other.
    """
    if name_or_config is None:
        raise VitportError("create_model needs a model's name, a config, or weights=.")
    config = get_model(name_or_config).config if isinstance(name_or_config, str) else name_or_config
    return config.replace(**config_fields(config, fields))
