"""Weights together with what the user gives beside them: a file that describes them, the base of an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversion.adapter import with_adapter_merged
from conversion.containers import open_source
from conversion.identify.given import read_config
from conversion.opening import Opening
from conversion.source import Source
from vit_spec import VitportError


def open_described(path: Path, opening: Opening) -> tuple[Source, Mapping[str, Any]]:
    """The source, with a config.json that the user gave, and the config fields that the user's file states.

    An adapter is merged into its base.

    Raises:
        VitportError: as :func:`open_source`, and where the source has a description of its own in place of which
            another is given.
    """
    source = with_adapter_merged(open_source(path, opening.weights_key), opening.base)
    if opening.config is None:
        return source, {}
    described = read_config(opening.config)
    if described.config_json is None:
        return source, described.facts
    if source.config_json is not None or source.own is not None:
        raise VitportError(
            f"{path} says itself what it is, so the config.json {opening.config} is not needed: leave out --config, or "
            "correct the one beside the weights."
        )
    return replace(source, config_json=described.config_json), {}
