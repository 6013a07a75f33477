"""From a file of any format to the model that it means by its own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from conversion.described import open_described
from conversion.identify.known_class import format_by_class
from conversion.identify.recognise import recognise
from conversion.opening import AS_IT_IS, Opening
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.table import TensorTable
from vit_parity.capture import Activations
from vit_parity.semantics.facts import Facts
from vit_parity.semantics.positions import with_periods
from vit_parity.semantics.readers import JaxReader, TorchReader, separate_blocks
from vit_parity.semantics.timm_folder import facts_of_config, facts_of_timm, is_timm
from vit_parity.semantics.vit import Semantics
from vit_spec import Config, ViTConfig, VitportError, config_from_dict, needed_module
from vit_spec.vit.rotary import DinoV3Rotary

_READERS = {"pytorch": TorchReader, "jax": JaxReader}
_HIDDEN_ACT = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu", "silu": "silu", "swish": "silu", "relu": "relu",
}  # fmt: skip
"""transformers' ``ACT2FN``, written down apart from ``conversion.config_json``."""


class Meaning(Protocol):
    """One model as its file's own names describe it: ``vit_parity.semantics.vit.Semantics`` for a plain ViT."""

    def run(self, images: np.ndarray) -> Activations:
        """(B, H, W, C) -> the activations of :func:`vit_parity.points.stage_points`, in float64."""
        ...


def semantics_of_file(
    path: Path,
    config: Config,
    *,
    opening: Opening = AS_IT_IS,
    dtype: np.dtype | None = None,
    activation: str | None = None,
    theta: bool = False,
    head: bool = True,
) -> Meaning:
    """The model of a file, to be run by the file's own names and conventions.

    Args:
        path: file or folder of weights in any format but ONNX, whose graph says itself what it computes.
        config: for what the file does not say: the number of heads, in most formats the epsilon and the activation.
        opening: how to open the file.
        dtype: rounds every array to this type first; ``None`` leaves them as they are.
        activation: replaces the file's own; ``None`` keeps it.
        theta: takes theta's periods of rotary positions, not the file's own.
        head: ``False`` leaves out the file's head.

    Raises:
        VitportError: if the file cannot be read, or its format has no second reading.
    """
    source, _ = open_described(path, opening)
    config_json = source.config_json or {}
    found = recognise(source.table, opening.format or format_by_class(config_json), source.under, opening.unreplicate)
    reading = found.format.second_reading
    if reading is None:
        raise VitportError(
            f"{path} is in the format {found.format.name}, which cannot be verified because it has no second_reading: "
            "add one to the format (docs/adding_a_format.md)."
        )
    if not isinstance(config, ViTConfig):
        family = needed_module(__package__ or "", config, "cannot be run by a file's own names yet: leave out --verify")
        whole = TensorTable({**found.table.tensors, **found.aside.tensors})
        return family.meaning(source, whole, reading, config, dtype=dtype, activation=activation, head=head)
    if not isinstance(reading, SecondReading):
        raise VitportError(f"{path} is in the format {found.format.name}, which holds other models than plain ViTs.")
    if source.own is not None and isinstance(own := config_from_dict(source.own["config"]), ViTConfig):
        config = own  # the file's own words, not what a reader made of them
    facts = _facts(reading, config, config_json, found.table)
    if reading.periods in found.aside:
        facts = replace(facts, rotary=with_periods(facts.rotary, found.aside[reading.periods]))
    if activation is not None:
        facts = replace(facts, activation=activation)
    if theta and isinstance(facts.rotary, DinoV3Rotary):
        facts = replace(facts, rotary=replace(facts.rotary, periods=None))
    table, names = _blocks_apart(found.table, reading.names)
    if config_json.get("pooler_act", "tanh") != "tanh":
        names = replace(names, pre_logits=())  # a stand-in, see conversion.config_json.huggingface.ignored_pooler
    if not head:
        names = replace(names, head=(), head_dist=(), projection=())
    reader = _READERS[reading.axes](table, dtype, reading.flat_patches == "channels last")
    return Semantics(reader, names, facts)


def _blocks_apart(table: TensorTable, names: PartNames) -> tuple[TensorTable, PartNames]:
    templates: list[str] = []
    for template in names.block:
        table, template = separate_blocks(table, template)
        templates.append(template)
    return table, replace(names, block=tuple(templates))


def _facts(reading: SecondReading, config: ViTConfig, config_json: Mapping[str, Any], table: TensorTable) -> Facts:
    if not reading.plain and is_timm(config_json):
        return facts_of_timm(config_json)
    fixed = Facts(
        heads=config.num_heads,
        eps=config.norm_eps if reading.norm_eps is None else reading.norm_eps,
        activation=config.activation if reading.activation is None else reading.activation,
        pool=_pool(reading, config, table),
        pool_prefix=reading.pool_prefix,
        sincos=reading.sincos,
        rotary=reading.rotary,
    )
    if reading.config_json is not None and config_json:
        return _told_by_config_json(fixed, {**reading.config_json, **config_json.get("vision_config", config_json)})
    if reading.plain:
        return fixed
    return replace(facts_of_config(config), eps=fixed.eps, activation=fixed.activation, pool=fixed.pool)


def _pool(reading: SecondReading, config: ViTConfig, table: TensorTable) -> str:
    shown = next((pool for name, pool in reading.pool_where.items() if name in table), reading.pool)
    return config.pool if shown is None else shown


def _told_by_config_json(facts: Facts, own: Mapping[str, Any]) -> Facts:
    """Hugging Face's config.json; a SwiGLU of DINOv2's runs SiLU whatever ``hidden_act`` says."""
    theta = own.get("rope_theta", (own.get("rope_parameters") or {}).get("rope_theta"))
    return replace(
        facts,
        rotary=facts.rotary if theta is None or facts.rotary is None else replace(facts.rotary, theta=theta),
        heads=own["num_attention_heads"],
        eps=own["rms_norm_eps" if "rms_norm_eps" in own else "layer_norm_eps"],
        centred="rms_norm_eps" not in own and own.get("norm_type") != "rms_norm",
        activation="silu" if own.get("use_swiglu_ffn") else _HIDDEN_ACT[own["hidden_act"]],
    )
