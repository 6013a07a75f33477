"""Whether what a record, a config.json or a name says of a model is what its tensors show.

What no shape shows is taken from their words, so words of another model would give wrong outputs without an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conversion.config_json import huggingface as huggingface_config
from conversion.identify.family import identifier
from conversion.identify.resolve import Fact
from conversion.source import CONFIG_JSON, OWN_RECORD, TRAIN_PY
from conversion.tensors.table import Shapes
from vit_spec import Config, ViTConfig, VitportError, family_of, get_model

_PARTS = {"layer_scale": "LayerScale", "pos_embed": "position table", "final_norm": "last norm"}
"""Parts that a model has or lacks, whatever their kind."""


def check_told(told: Mapping[str, Fact], config: Config) -> None:
    """Compare what the file's own record or config.json says with the tensors.

    Args:
        told: config field → what the file says.
        config: what was made of it: what tensors show has overruled it.

    Raises:
        VitportError: naming every field that differs.
    """
    stated = {name: fact for name, fact in told.items() if fact.origin in (OWN_RECORD, CONFIG_JSON, TRAIN_PY)}
    if "mlp_hidden_dim" in stated and stated["mlp_hidden_dim"].value is not None:
        stated.pop("mlp_ratio", None)  # which it overrules
    differing = [
        (f"{name}={_plain(fact.value)!r}", f"{name}={getattr(config, name)!r}", fact.origin)
        for name, fact in stated.items()
        if not _same(name, fact, config)
    ]
    if differing:
        said, shown, origins = zip(*differing, strict=True)
        raise VitportError(
            f"{origins[0][:1].upper()}{origins[0][1:]} says {', '.join(said)}, but the tensors show "
            f"{', '.join(shown)}: they belong to different models, so fetch the weights again, or correct the error."
        )


def check_width(config_json: Mapping[str, Any], config: Config) -> None:
    """Compare the width of the MLPs in Hugging Face's config.json with the tensors.

    Raises:
        VitportError: if they differ.
    """
    stated = huggingface_config.hidden_width(config_json)
    if stated is not None and isinstance(config, ViTConfig) and stated != config.hidden_dim:
        raise VitportError(
            f"config.json says that the MLPs are {stated} wide, but the tensors show {config.hidden_dim}: they are of "
            "two models, so fetch the folder again."
        )


def check_sizes(model: str, family: str, shapes: Shapes) -> None:
    """Refuse a registered name whose sizes are not those that the tensors' shapes show.

    This comes before anything else is made of the name: a position table that fits no image size, or a width that does
    not divide among the name's heads, are what follows from a wrong name.

    Args:
        model: the name.
        family: the family of the tensors; a name of another is refused elsewhere.
        shapes: canonical name → shape.

    Raises:
        VitportError: with the first difference.
    """
    named = get_model(model).config
    if named.family == family:
        shown = identifier(family).sizes_from_shapes(shapes)
        _compare(
            model, named, {name: shown[name] for name in (*family_of(named).size_fields, "num_heads") if name in shown}
        )


def check_name(model: str, told: Mapping[str, Fact], config: Config, need_head: bool) -> None:
    """Refuse a registered name whose layers are not the tensors': its heads and epsilon would be another model's.

    Args:
        model: the name.
        told: config field → what the file says itself.
        config: what the file and its tensors are.
        need_head: whether the head will be used.

    Raises:
        VitportError: with the first difference.
    """
    named = get_model(model).config
    _compare(model, named, {name: getattr(config, name) for name in family_of(config).size_fields})
    for name, what in _PARTS.items():
        if (holds := _has(config, name)) != _has(named, name):
            raise VitportError(
                f"{model} has {'no' if holds else 'a'} {what}, but the file holds {'one' if holds else 'none'}: name "
                "the model that the tensors are, or give a config."
            )
    recorded = any(fact.origin == OWN_RECORD for fact in told.values())
    identifier(config.family).check_named(model, named, config, recorded or not need_head)
    heads, named_heads = told.get("num_heads"), getattr(named, "num_heads", None)
    if heads is not None and heads.value != named_heads:
        raise VitportError(
            f"{model} has num_heads={named_heads}, but {heads.origin} says num_heads={heads.value}: leave out the "
            "name (--model)."
        )


def check_given(given: Config, config: Config) -> None:
    """Refuse tensors that lack a part which the caller's config has: they are incomplete, or another model's.

    Raises:
        VitportError: naming the part and the field that says so.
    """
    for name, what in _PARTS.items():
        if _has(given, name) and not _has(config, name):
            raise VitportError(
                f"The config given has {name}={getattr(given, name)!r}, but the file holds no {what}: fetch the "
                "weights again, or give a config without one."
            )


def _compare(model: str, named: Config, shown: Mapping[str, Any]) -> None:
    for name, value in shown.items():
        if getattr(named, name) != value:
            raise VitportError(
                f"{model} has {name}={getattr(named, name)}, but the tensors have {name}={value}: name the model that "
                "they are, or give a config."
            )


def _has(config: Config, part: str) -> bool:
    return getattr(config, part, None) not in (None, "none")


def _same(name: str, fact: Fact, config: Config) -> bool:
    value = fact.value
    if isinstance(config, ViTConfig):
        if name == "image_size" and config.pos_embed == "none":
            return True  # no tensor shows it
        if name == "mlp_hidden_dim":
            return value is None or value == config.hidden_dim
        if name == "mlp_ratio":  # timm halves the width of a gated MLP
            gated = config.mlp != "plain" and fact.origin in (CONFIG_JSON, TRAIN_PY)
            return gated or int(config.embed_dim * value) == config.hidden_dim
    return _plain(value) == _plain(getattr(config, name))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
