"""What timm's config.json says that no array shows, read apart from ``conversion.config_json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vit_parity.semantics.facts import Facts
from vit_spec import ViTConfig, get_model


def is_timm(config_json: Mapping[str, Any]) -> bool:
    """Whether timm, or transformers' TimmWrapper, wrote the file."""
    return isinstance(config_json.get("architecture"), str)


def facts_of_timm(config_json: Mapping[str, Any]) -> Facts:
    """The architecture's facts, overridden by the arguments that timm's ``create_model`` gives to its class."""
    named = get_model(config_json["architecture"].split(".")[0]).config
    assert isinstance(named, ViTConfig)  # loading refuses tensors of another family than the architecture's
    arguments = config_json.get("model_args") or {}
    pretrained = config_json.get("pretrained_cfg") or {}
    pool = arguments.get("global_pool") or config_json.get("global_pool") or pretrained.get("global_pool")
    facts = replace(
        facts_of_config(named),
        heads=arguments.get("num_heads", named.num_heads),
        pool=pool or named.pool,
        pool_prefix=arguments.get("pool_include_prefix", named.pool_prefix),
    )
    if "act_layer" in arguments:  # timm.layers.create_act
        act = arguments["act_layer"] or "gelu"
        facts = replace(facts, activation="silu" if act == "swish" else act)
    if "norm_layer" in arguments:  # timm.layers.create_norm; both classes add 1e-6
        facts = replace(facts, eps=1e-6, centred="rms" not in (arguments["norm_layer"] or ""))
    return facts


def facts_of_config(config: ViTConfig) -> Facts:
    """The facts of a config."""
    return Facts(
        heads=config.num_heads,
        eps=config.norm_eps,
        activation=config.activation,
        pool=config.pool,
        scale=config.qk_scale,
        centred=config.norm == "layernorm",
        order=config.block,
        pool_prefix=config.pool_prefix,
        pool_heads=config.map_heads,
        rotary=config.rotary,
        distilled=config.distilled,
    )
