"""What a format cannot hold, what it drops, what its readers assume, and which options help."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from conversion.changes.activation import GELUS, ActivationChoice
from conversion.changes.vit.restate import restated_config
from conversion.checkpoint import Checkpoint
from conversion.format import Format
from conversion.source import OWN_RECORD
from conversion.tensors.table import Shapes
from vit_spec import Config, ViTConfig, VitportError
from vit_spec.vit.rotary import DinoV3Rotary

_HELD_BY_ALL = frozenset({
    "image_size", "patch_size", "in_channels", "num_classes", "embed_dim", "depth", "depths", "num_heads",
    "mlp_ratio", "mlp_hidden_dim", "norm_eps", "pos_embed_resize", "drop_rate", "attn_drop_rate", "drop_path_rate",
})  # fmt: skip
"""Sizes, and fields that change no output: rates of training, and how positions are resized for other images."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "--positions prefix": {"pos_embed": "prefix"},
    "--positions patch": {"pos_embed": "patch"},
    "--fold layer-scale": {"layer_scale": None, "scale_attention_only": False},
    "--fold qk-scale": {"qk_scale": None},
    "--activation erf": {"activation": "gelu"},
    "--activation tanh": {"activation": "gelu_tanh"},
    "--head drop": {"num_classes": 0},
}
"""Option of ``vitport convert``, and of the functions of ``conversion`` → the change that it makes in the config."""


def unsupported_fields(config: Config, **allowed: tuple[Any, ...]) -> list[str]:
    """The config fields whose values a format cannot hold, each as ``field=value``.

    Args:
        config: the model to write.
        allowed: field → the values that the format can hold. Fields that are not named must have their defaults,
            except sizes and fields that change no output.
    """
    rules = {name: (value,) for name, value in defaults(config).items() if name not in _HELD_BY_ALL} | allowed
    if isinstance(config, ViTConfig) and config.qk_scale == config.qk_dim**-0.5:
        config = config.replace(qk_scale=None)  # the default scale, whether stated or not
    if isinstance(config, ViTConfig) and (config.pool == "token" or not config.num_prefix_tokens):
        config = config.replace(pool_prefix=False)  # it decides nothing
    return [
        f"{name}={getattr(config, name)!r}" for name, values in rules.items() if getattr(config, name) not in values
    ]


def defaults(config: Config) -> dict[str, Any]:
    """The fields of the config's family and their defaults."""
    return {field.name: field.default for field in dataclasses.fields(config)}


def margin_around_patches(config: ViTConfig) -> list[str]:
    """A complaint about images with rows or columns outside all patches, for code that asserts whole patches."""
    height, width = config.image_size
    margin = f"images of {height}x{width} pixels (it takes whole patches of {config.patch_size} only)"
    return [margin] if _margin(config) else []


def _margin(config: Config) -> bool:
    return isinstance(config, ViTConfig) and any(config.margin)


def not_square(config: Config) -> list[str]:
    """A complaint about images that are not square, for formats that store one side only."""
    height, width = config.image_size
    return [] if height == width else [f"images of {height}x{width} pixels (it holds square ones only)"]


def helpful_options(config: Config, cannot_hold: Callable[[Any], list[str]]) -> list[str]:
    """The options of ``vitport convert`` that let a format hold the model; empty if none do.

    Args:
        cannot_hold: the format's.
    """
    if not isinstance(config, ViTConfig):
        return []
    side = max(config.image_size)
    square: dict[str, dict[str, Any]] = {f"--image-size {side}": {"image_size": side}}
    changed, helpful = config, []

    def complaints(config: ViTConfig) -> list[str]:
        return cannot_hold(restated_config(config, cannot_hold))

    rotary = config.rotary
    usual = {} if not isinstance(rotary, DinoV3Rotary) else {"rotary": dataclasses.replace(rotary, periods=None)}
    for option, changes in (_OPTIONS | square | {"--periods theta": usual}).items():
        after = changed.replace(**changes)
        if _applies(config, changes) and len(complaints(after)) < len(complaints(changed)):
            changed, helpful = after, [*helpful, option]
    return helpful if not complaints(changed) else []


def _applies(config: ViTConfig, changes: dict[str, Any]) -> bool:
    if "activation" in changes:
        return config.activation in GELUS.values()
    return config.pos_embed != "none" or "pos_embed" not in changes


def dropped(checkpoint: Checkpoint, target: Format, shapes: Shapes) -> list[str]:
    """What of ``Format.drops`` this checkpoint has and a reader of the file would replace by something else.

    Args:
        shapes: the format's own names → shapes.
    """
    conventions = {**target.conventions, **(target.shape_facts(shapes) if target.shape_facts is not None else {})}
    lost: list[str] = []
    for name in target.drops:
        if name == "labels":
            lost += [f"the names of {len(checkpoint.labels)} classes"] if checkpoint.labels else []
            lost += ["that an image may have several labels"] * checkpoint.several_labels
        elif name == "preprocessing":
            lost += _dropped_preprocessing(checkpoint, target)
        elif name == "cropping":
            lost += _differing("preprocessing.cropping", _cropping(checkpoint), "transformers")
        elif name == "image_size":
            height, width = checkpoint.config.image_size
            square = height == width and not _margin(checkpoint.config)
            lost += [] if square else [f"image_size={height}x{width} (readers take a square of whole patches)"]
        else:
            usual = conventions.get(name, defaults(checkpoint.config)[name])
            lost += _differing(name, getattr(checkpoint.config, name), usual)
    return lost


def _dropped_preprocessing(checkpoint: Checkpoint, target: Format) -> list[str]:
    own, usual = checkpoint.preprocessing, target.usual_preprocessing(checkpoint.config)
    lost: list[str] = []
    for name in (field.name for field in dataclasses.fields(own)):
        lost += _differing(f"preprocessing.{name}", getattr(own, name), getattr(usual, name))
    return lost


def _cropping(checkpoint: Checkpoint) -> str:
    """How the centre is cut out; as transformers does where nothing is cut off."""
    own = checkpoint.preprocessing
    return "transformers" if own.resize == "squash" else own.cropping


def _differing(name: str, own: Any, usual: Any) -> list[str]:
    return [] if own == usual else [f"{name}={own!r} (readers take {usual!r})"]


def check_reader_defaults(checkpoint: Checkpoint, target: Format, activation: ActivationChoice | None) -> list[str]:
    """Refuse to write where readers would run the other form of GELU and nobody has chosen which one to write.

    No choice is needed where the destination's users already know the model's form: the format stays the same, or
    vitport's own config says it (a model in memory, or a record that the new file carries on).

    Returns:
        A sentence that warns of such readers where the file itself does not say which form to run.

    Raises:
        VitportError: if the choice is the user's and ``activation`` is ``None``.
    """
    if "activation" not in target.reader_defaults:
        return []
    own, assumed = checkpoint.config.activation, target.reader_defaults["activation"]
    if own == assumed or not {own, assumed} <= set(GELUS.values()):
        return []
    told = f"and config.json will say {own}" if target.facts is not None else "and tell its readers yourself"
    if activation is None and not _is_known_already(checkpoint, target):
        change = next(choice for choice, form in GELUS.items() if form == assumed)
        raise VitportError(
            f"The weights run {own}, but readers of {target.name} run {assumed} unless told otherwise. Choose with "
            f"activation (--activation): keep ({told}), or {change}, which changes the outputs."
        )
    if target.facts is not None:
        return []
    return [f"only vitport's own record says {own}: other readers of {target.name} run {assumed} unless told otherwise"]


def _is_known_already(checkpoint: Checkpoint, target: Format) -> bool:
    source = checkpoint.provenance
    own_words = source.format == "memory" or source.origins.get("activation") == OWN_RECORD
    return own_words or source.format == target.name
