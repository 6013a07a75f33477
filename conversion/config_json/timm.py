"""The config.json that timm puts beside weights on the Hub, and transformers' TimmWrapper too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from vit_spec import Config, Preprocessing, ViTConfig, VitportError, family_module, get_model
from vit_spec.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Interpolation, ResizeMode
from vit_spec.reading import height_and_width
from vit_spec.vit.config import FIELDS
from vit_spec.vit.options import TIMM_NAMES, TIMM_NORM_BEHIND_POOLING

_GOOGLE_TAGS = ("augreg", "orig", "sam")
"""Beginnings of tags of weights that Google trained with the tanh GELU and timm runs with the erf form."""
_CROP_MODES: dict[str, ResizeMode] = {"center": "shortest", "squash": "squash_crop"}
"""timm's ``crop_mode``; ``border``, its third, pads."""


_ACTIVATIONS = {
    None: "gelu", "gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "silu": "silu",
    "swish": "silu", "relu": "relu",
}  # fmt: skip
"""timm's ``act_layer``; ``None`` is the default of its ``VisionTransformer``."""
_NORMS = {
    None: {"norm": "layernorm", "norm_eps": 1e-6}, "layernorm": {"norm": "layernorm", "norm_eps": 1e-6},
    "rmsnorm": {"norm": "rmsnorm", "norm_eps": 1e-6, "norm_bias": False},
}  # fmt: skip
"""timm's ``norm_layer``, with the epsilon of timm's own classes."""
_POOLS = ("token", "avg", "map")
_SAME_FIELDS = (
    "patch_size", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm", "proj_bias",
    "pre_norm", "class_token", "attn_drop_rate", "drop_path_rate",
)  # fmt: skip
"""Arguments of timm's ``VisionTransformer`` that ``ViTConfig`` has under the same name."""
_PLACEMENT = frozenset({"global_pool", "final_norm", TIMM_NORM_BEHIND_POOLING, "pos_embed", "no_embed_class"})
"""Arguments whose meaning depends on others."""
_NO_EFFECT = frozenset(
    {
        "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "weight_init", "fix_init",
        "dynamic_img_size", "strict_img_size", "pretrained", "checkpoint_path", "cache_dir",
    }
)  # fmt: skip
"""Arguments that change no output of a trained model at its own image size."""
MAY_DIFFER = frozenset({"image_size"})
"""Fields of which the tensors may show another value: timm resizes the position table as it loads."""


def architecture(config: Mapping[str, Any], where: str = "config.json") -> tuple[Config, str] | None:
    """The model that config.json names, and the name's origin in words; ``None`` for other config.json files.

    Args:
        config: the content of config.json.
        where: what it stands in, for messages: a checkpoint of timm's train.py says the same by its arguments.

    Raises:
        VitportError: for an architecture that is not registered.
    """
    if (name := architecture_name(config)) is None:
        return None
    return get_model(name).config, f"{where}, which names {name}"


def architecture_name(config: Mapping[str, Any]) -> str | None:
    """The registered name in config.json, without the tag of its weights; ``None`` for other config.json files."""
    if "architecture" not in config or not ("pretrained_cfg" in config or config.get("model_type") == "timm_wrapper"):
        return None
    return str(config["architecture"]).partition(".")[0]


def facts(config: Mapping[str, Any], where: str = "config.json") -> dict[str, Any]:
    """Config fields that config.json states beyond the architecture's name, which they override.

    ``model_args`` are the arguments that timm builds the model with. What they leave out comes from the file's
    ``num_classes`` and ``global_pool`` and from ``pretrained_cfg``, as in timm's ``build_model_with_cfg``.

    Args:
        config: the content of config.json.
        where: as for :func:`architecture`.

    Raises:
        VitportError: for an argument or a value that ``ViTConfig`` cannot express, by its name and value; for two
            values of ``global_pool``.
    """
    if (named := architecture(config)) is None:
        return {}
    if not isinstance(vit := named[0], ViTConfig):
        family = family_module(__package__ or "", named[0])
        return {} if family is None else family.timm_facts(config, where)
    arguments = dict(config.get("model_args") or {})
    told: dict[str, Any] = _sizes_of_pretraining(config)
    for name, value in arguments.items():
        if name not in _PLACEMENT:
            told |= _field(name, value, where)
    return told | _placement(config, arguments, vit, where) | _positions(arguments, vit, told, where)


def _sizes_of_pretraining(config: Mapping[str, Any]) -> dict[str, Any]:
    size = (config.get("pretrained_cfg") or {}).get("input_size")
    found: dict[str, Any] = {} if size is None else {"image_size": tuple(size[1:])}
    return found | ({"num_classes": config["num_classes"]} if config.get("num_classes") is not None else {})


def _field(name: str, value: Any, where: str) -> dict[str, Any]:
    """The config fields that one argument of timm's ``VisionTransformer`` sets."""
    if name in _NO_EFFECT:
        return {}
    if name == "act_layer" and (value is None or isinstance(value, str)) and value in _ACTIVATIONS:
        return {"activation": _ACTIVATIONS[value]}
    if name == "norm_layer" and (value is None or isinstance(value, str)):
        kind = value if value is None else value.replace("_", "").lower()
        if kind in _NORMS:
            return _NORMS[kind]
    if name == "patch_size" and isinstance(value, list) and len(set(value)) == 1:
        return {"patch_size": value[0]}
    field = TIMM_NAMES.get(name, name if name in _SAME_FIELDS else None)
    if field == "image_size" and value is not None:
        return {field: height_and_width(value, name)}
    if field in FIELDS and not isinstance(value, (dict, list)):
        return {field: value}
    if value is None or value is False:  # timm's default of every other argument
        return {}
    raise _refused(name, value, where)


def _placement(config: Mapping[str, Any], arguments: Mapping[str, Any], named: ViTConfig, where: str) -> dict[str, Any]:
    """Pooling and last norm.

    timm applies the last norm to the mean of the patches (``fc_norm``), unless it is given ``fc_norm=False``, and to
    the tokens under every other pooling, unless it is given ``fc_norm=True``.
    """
    pool = _pool(config, arguments, where)
    found: dict[str, Any] = {} if pool is None else {"pool": pool}
    if {"global_pool", TIMM_NORM_BEHIND_POOLING, "final_norm"} & set(arguments):
        by_pool = (named.pool == "avg") != (named.final_norm == "pooled")  # the architecture's own fc_norm
        usual = named.final_norm == "pooled" if by_pool else None
        own = arguments.get(TIMM_NORM_BEHIND_POOLING, usual)
        pooled = (pool or named.pool) == "avg" if own is None else bool(own)
        last = arguments.get("final_norm", named.final_norm != "none")
        found["final_norm"] = "none" if not last else "pooled" if pooled else "tokens"
    return found


def _positions(arguments: Mapping[str, Any], named: ViTConfig, told: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The position table's rows, where arguments change them: timm's registers have rows if the class token has one."""
    kind = arguments.get("pos_embed", "learn")
    if kind in ("none", ""):
        return {"pos_embed": "none"}
    if kind != "learn":
        raise _refused("pos_embed", kind, where)
    if not {"no_embed_class", "reg_tokens", "class_token"} & set(arguments):
        return {}
    registers = told.get("register_tokens", named.register_tokens)
    if arguments.get("no_embed_class", named.pos_embed == "patch"):
        return {"pos_embed": "patch"}
    if told.get("class_token", named.class_token) or registers:
        return {"pos_embed": "all" if registers else "prefix"}
    return {"pos_embed": "patch"}


def _pool(config: Mapping[str, Any], arguments: Mapping[str, Any], where: str) -> str | None:
    pretrained = (config.get("pretrained_cfg") or {}).get("global_pool")
    stated = {
        "model_args": arguments.get("global_pool"),
        "its top level": config.get("global_pool"),
        "pretrained_cfg": None if "global_pool" in arguments or "global_pool" in config else pretrained,
    }
    values = {place: value for place, value in stated.items() if value is not None}
    if len(set(values.values())) > 1:
        said = " and ".join(f"{value!r} in {place}" for place, value in values.items())
        raise VitportError(f"{where} says global_pool={said}: correct the one that is wrong.")
    for value in values.values():
        if value not in _POOLS:
            raise _refused("global_pool", value, where)
        return value
    return None


def _refused(name: str, value: Any, where: str) -> VitportError:
    return VitportError(
        f"{where} has {name}={value!r} among timm's arguments, which is not supported: vitport converts plain "
        "Vision Transformers, whose global_pool is token, avg or map and whose layers are timm's own."
    )


def preprocessing(config: Mapping[str, Any], channels: int) -> Preprocessing:
    """The evaluation transform that timm makes of ``pretrained_cfg``, with timm's own defaults for what it leaves out.

    Args:
        config: the content of config.json.
        channels: of the model's images.

    Raises:
        VitportError: for a value that has no meaning, or none that ``Preprocessing`` can express, by its key.
    """
    told = {key: value for key, value in (config.get("pretrained_cfg") or {}).items() if value not in (None, "", 0)}
    mode, filter = told.get("crop_mode", "center"), told.get("interpolation", "bicubic")
    share = told.get("crop_pct", 0.875)
    if not isinstance(mode, str) or mode not in _CROP_MODES:
        raise _unprepared("crop_mode", mode, f"known are {', '.join(_CROP_MODES)}")
    if not isinstance(filter, str) or filter not in get_args(Interpolation):
        raise _unprepared("interpolation", filter, f"known are {', '.join(get_args(Interpolation))}")
    if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 < share <= 1:
        raise _unprepared("crop_pct", share, "it must be above 0 and at most 1")
    size = told.get("input_size", [channels, 224, 224])
    if not isinstance(size, (list, tuple)) or len(size) != 3 or size[0] != channels:
        raise _unprepared("input_size", size, f"it must be [{channels}, height, width]")
    mean = _colours("mean", told.get("mean", list(IMAGENET_MEAN)), channels)
    std = _colours("std", told.get("std", list(IMAGENET_STD)), channels)
    resize = "squash" if mode == "squash" and share == 1 else _CROP_MODES[mode]
    return Preprocessing(
        size=(size[1], size[2]),
        mean=mean,
        std=std,
        crop_fraction=share,
        resize=resize,
        interpolation=cast(Interpolation, filter),
    )


def _colours(name: str, value: Any, channels: int) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or len(value) != channels:
        raise _unprepared(name, value, f"the model's images have {channels} channel{'s' if channels > 1 else ''}")
    return tuple(value)


def _unprepared(name: str, value: Any, why: str) -> VitportError:
    return VitportError(f"config.json has {name}={value!r} in its pretrained_cfg, but {why}: correct it.")


def labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the classes in order; ``None`` if config.json has none."""
    names = config.get("label_names")
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def remarks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a user should know and timm does not say."""
    tag = str((config.get("pretrained_cfg") or {}).get("tag", ""))
    if not tag.startswith(_GOOGLE_TAGS):
        return ()
    return (
        f"the tag {tag} marks weights that Google trained with the tanh form of GELU; timm runs them with erf, and so "
        "does this checkpoint unless its activation is set to tanh",
    )
