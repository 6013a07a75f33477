"""Facts that a user states about weights: one by one, or in a file."""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion.config_json import microsoft
from conversion.containers.file_checks import MOST_JSON, json_object, read_regular
from vit_spec import Config, ViTConfig, VitportError, config_fields
from vit_spec.family import FAMILIES
from vit_spec.reading import height_and_width
from vit_spec.vit.rotary import as_rotary

OPTIONS = {
    "num_heads": "--heads", "activation": "--activation", "norm_eps": "--eps", "pool": "--pool", "norm": "--norm",
    "qk_scale": "--qk-scale", "pos_embed": "--pos-embed", "final_norm": "--final-norm", "pool_prefix": "--pool-prefix",
    "image_size": "--image-size",
}  # fmt: skip
"""Config field → the option of the command that states it."""
_NO_OUTPUT = frozenset({"drop_rate", "attn_drop_rate", "drop_path_rate", "pos_embed_resize"})
"""Fields that change no output of the weights as they are, so a file's own value stays without a word."""
_FOREIGN = frozenset({"model_type", "architectures", "architecture", "pretrained_cfg", "vision_config"})
"""Keys of the config.json of transformers and timm."""


_MOST_TEXT = 1 << 16
"""Bytes of a file that are looked at to tell what it is."""


@dataclass(frozen=True)
class Described:
    """What a file beside the weights says about them."""

    facts: Mapping[str, Any]
    """Config fields."""
    config_json: Mapping[str, Any] | None = None
    """The file, if it is a config.json of transformers or timm."""


def read_config(path: str | Path) -> Described:
    """A JSON file with fields of a config, a record of vitport, the config.json of transformers or timm, or an options
    file of microsoft/Swin-Transformer.

    Raises:
        VitportError: if it cannot be read, or holds a field that is not known.
    """
    path = Path(path)
    if path.suffix == ".py":
        raise VitportError(
            f"{path} is a program, as the configs of OpenMMLab are, and is not run: give a JSON file with the fields "
            "that it sets, such as window_sizes and image_size, or the model's name (--model)."
        )
    try:
        content = read_regular(path, MOST_JSON)
    except OSError as error:
        raise VitportError(f"{path} cannot be read ({error.strerror or error}): give a JSON file.") from error
    text = content[:_MOST_TEXT].decode(errors="replace")
    if not text.lstrip().startswith("{") and microsoft.is_yaml(path, text):
        return Described(given_facts(microsoft.facts(path, content.decode(errors="replace"))))
    values = json_object(path, content)
    if _FOREIGN & set(values):
        return Described({}, values)
    inner = values.get("config")
    fields = dict(inner if isinstance(inner, dict) else values)
    fields.pop("family", None)
    return Described(given_facts(fields))


def given_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts under the names of the fields of a family's config, the first that has them all.

    Raises:
        VitportError: for an unknown name, or a field that is given twice.
    """
    found = config_fields(_kind(facts), facts)
    if "image_size" in found:
        found["image_size"] = height_and_width(found["image_size"], "image_size")
    if "rotary" in found:
        found["rotary"] = as_rotary(found["rotary"])
    return found


def _kind(facts: Mapping[str, Any]) -> type[Config]:
    """The config that has the most of these fields."""

    def known(kind: type[Config]) -> int:
        names = {field.name for field in dataclasses.fields(kind)} | set(FAMILIES[kind.family].aliases)
        return len(names & set(facts))

    return max((family.config for family in FAMILIES.values()), key=known)


def with_own_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by their own names where timm's were given; unknown names as they are."""
    aliases = dict(ChainMap(*(dict(family.aliases) for family in FAMILIES.values())))
    return {aliases.get(name, name): value for name, value in fields.items()}


def both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Facts from two places.

    Raises:
        VitportError: for a field on which they differ.
    """
    for name in first:
        if name in second and first[name] != second[name]:
            raise VitportError(
                f"{name} is given as {first[name]!r} in the config file and as {second[name]!r}: give one of them."
            )
    return {**first, **second}


def check_facts(given: Mapping[str, Any], config: Config, origins: Mapping[str, str]) -> None:
    """Compare what a user stated with what the file has.

    Raises:
        VitportError: for the first fact that contradicts it.
    """
    for name, value in given.items():
        if not hasattr(config, name):
            raise VitportError(f"{name} is not a fact about models of the family {config.family}: leave it out.")
        if name not in _NO_OUTPUT and not _agrees(name, value, config, given):
            option = f" ({OPTIONS[name]})" if name in OPTIONS else ""
            own, origin = _said(getattr(config, name)), origins.get(name, "the default")
            raise VitportError(
                f"{name}={_said(value)}{option} contradicts the file, which has {name}={own} from {origin}: leave it "
                "out, or give the file that it is true of."
            )


def _agrees(name: str, value: Any, config: Config, given: Mapping[str, Any]) -> bool:
    if not isinstance(config, ViTConfig):
        return getattr(config.replace(**{name: value}), name) == getattr(config, name)
    if name == "mlp_ratio":
        return given.get("mlp_hidden_dim") is not None or int(config.embed_dim * value) == config.hidden_dim
    if name == "mlp_hidden_dim":
        return value is None or value == config.hidden_dim
    if name == "layer_scale":  # shapes leave only the initial value open
        return (value is None) == (config.layer_scale is None)
    return value == getattr(config, name)


def _said(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else repr(value)
