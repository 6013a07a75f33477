"""What a file of a Swin Transformer says that no array shows, in its own words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conversion.second_reading.swin import SwinReading
from vit_parity.semantics.readers import TorchReader
from vit_parity.semantics.swin.model import SwinFacts, filled
from vit_spec import SwinConfig

HIDDEN_ACT = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu", "silu": "silu", "swish": "silu", "relu": "relu",
}  # fmt: skip
"""transformers' ``ACT2FN``, written down apart from ``conversion.config_json``."""
_TRANSFORMERS = {"window_size": 7, "layer_norm_eps": 1e-5, "hidden_act": "gelu"}
"""Defaults of transformers' SwinConfig and Swinv2Config."""

Sides = tuple[tuple[int, int], ...]


def swin_facts(
    reading: SwinReading, reader: TorchReader, config: SwinConfig, config_json: Mapping[str, Any], *, recorded: bool
) -> SwinFacts:
    """The facts of a file.

    Args:
        reading: of its format.
        reader: of its arrays.
        config: for what the file does not say; its own record's, if it has one.
        config_json: a folder's config.json.
        recorded: the file has a record of this project's.
    """
    margin = reading.margin or config.margin_rule
    shrinks, pads = reading.windows or config.window_rule, reading.pads or config.pad_order
    if recorded and reading.recorded:
        shrinks, pads, margin = config.window_rule, config.pad_order, config.margin_rule
    if _has_norms(reading, reader, config.num_stages):
        shrinks = "never"
    facts = SwinFacts(
        version=config.version,
        windows=_windows(reading, reader, config, shrinks),
        pretrained=config.pretrained_window_sizes,
        shrinks=shrinks,
        pads=pads,
        margin=margin,
        unfolds=reading.merges == "unfold",
        eps=config.norm_eps if reading.eps is None else reading.eps,
        inner_eps=config.patch_norm_eps if reading.inner_eps is None else reading.inner_eps,
        activation=config.activation if reading.activation is None else reading.activation,
    )
    return facts if reading.config_json is None else _told_by_config_json(facts, config_json)


def _has_norms(reading: SwinReading, reader: TorchReader, stages: int) -> bool:
    """Whether the file has the norms that only models whose windows never shrink have."""
    counted = {"nowhere": 0, "norms": stages, "earlier norms": stages - 1}[reading.never_where]
    norms = (reader.norm(filled(reading.names.stage_norm, stage), 1e-5, True) for stage in range(counted))
    return any(norm is not None for norm in norms)


def _windows(reading: SwinReading, reader: TorchReader, config: SwinConfig, shrinks: str) -> Sides:
    """Of each stage: as its buffer of coordinates has them, or its table if square windows can; else the config's."""
    found = []
    for stage, told in enumerate(config.window_sizes):
        block = filled(reading.names.block, stage)
        grid = reader.array(tuple(f"{at}.{name}" for at in block for name in reading.names.coordinates))
        table = reader.array(tuple(f"{at}.{name}" for at in block for name in reading.names.table))
        if grid is not None:
            found.append(((grid.shape[1] + 1) // 2, (grid.shape[2] + 1) // 2))
        elif table is not None and len(table) != (2 * told[0] - 1) * (2 * told[1] - 1):
            side = (math.isqrt(len(table)) + 1) // 2  # a window that has shrunk
            found.append((side, side) if shrinks != "axis" or (2 * side - 1) ** 2 == len(table) else told)
        else:
            found.append(told)
    return tuple(found)


def _told_by_config_json(facts: SwinFacts, config_json: Mapping[str, Any]) -> SwinFacts:
    own = {**_TRANSFORMERS, **config_json}
    stages = len(facts.windows)
    sides = own.get("pretrained_window_sizes") or [0] * stages
    return replace(
        facts,
        windows=((own["window_size"], own["window_size"]),) * stages,
        pretrained=tuple((side, side) if isinstance(side, int) else tuple(side) for side in sides[:stages]),
        eps=own["layer_norm_eps"],
        activation=HIDDEN_ACT[own["hidden_act"]],
    )
