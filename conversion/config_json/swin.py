"""What timm's config.json says about a Swin Transformer beyond the architecture's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_spec import SwinConfig, VitportError, get_model
from vit_spec.reading import height_and_width

_NAMES = {
    "img_size": "image_size", "in_chans": "in_channels", "window_size": "window_sizes", "proj_drop_rate": "drop_rate",
    "patch_size": "patch_size", "num_classes": "num_classes", "embed_dim": "embed_dim", "depths": "depths",
    "num_heads": "num_heads", "mlp_ratio": "mlp_ratio", "qkv_bias": "qkv_bias", "attn_drop_rate": "attn_drop_rate",
    "drop_path_rate": "drop_path_rate", "pretrained_window_sizes": "pretrained_window_sizes",
}  # fmt: skip
"""Arguments of timm's ``SwinTransformer`` and ``SwinTransformerV2`` → the field that means the same."""
_NO_EFFECT = frozenset({"drop_rate", "weight_init", "strict_img_size", "pretrained", "checkpoint_path", "cache_dir"})
"""Arguments that change no output of a trained model at its own image size."""


def timm_facts(config: Mapping[str, Any], where: str = "config.json") -> dict[str, Any]:
    """Config fields from ``model_args``, ``num_classes`` and ``pretrained_cfg``.

    Args:
        config: the content of config.json.
        where: what it stands in, for messages.

    Raises:
        VitportError: for an argument that ``SwinConfig`` cannot express, by its name and value.
    """
    named = get_model(str(config["architecture"]).partition(".")[0]).config
    assert isinstance(named, SwinConfig)
    pretrained = config.get("pretrained_cfg") or {}
    told: dict[str, Any] = {}
    if pretrained.get("input_size") is not None:
        told["image_size"] = tuple(pretrained["input_size"][1:])
    if config.get("num_classes") is not None:
        told["num_classes"] = config["num_classes"]
    arguments = dict(config.get("model_args") or {})
    for name, value in arguments.items():
        if name == "always_partition":
            told["window_rule"] = "never" if value else "axis"
        elif name in _NAMES:
            told[_NAMES[name]] = value
        elif name not in _NO_EFFECT and value not in (None, False) and (name, value) != ("global_pool", "avg"):
            raise _refused(name, value, where)
    for place in (config, pretrained):
        if place.get("global_pool", "avg") not in ("avg", None):
            raise _refused("global_pool", place["global_pool"], where)
    if "image_size" in told:
        size = told["image_size"]
        told["image_size"] = height_and_width(tuple(size) if isinstance(size, list) else size, "image_size")
    _by_stage(told, named)
    whole = named.replace(**{name: _tuples(value) for name, value in told.items()})  # lists and single sides, in full
    return {name: getattr(whole, name) for name in told}


def _by_stage(told: dict[str, Any], named: SwinConfig) -> None:
    """State the windows of each stage. timm takes two numbers for one window's height and width, in every stage.

    Its default windows are the same in all stages, and of more pretrained windows than stages it reads the first.
    """
    stages = len(told.get("depths", named.depths))
    window = told.get("window_sizes")
    if isinstance(window, (list, tuple)) and len(window) == 2 and all(isinstance(side, int) for side in window):
        told["window_sizes"] = [list(window)] * stages
    if stages != named.num_stages:
        told.setdefault("window_sizes", list(named.window_sizes[:1]) * stages)
        told.setdefault("pretrained_window_sizes", named.pretrained_window_sizes)
    pretrained = told.get("pretrained_window_sizes")
    if isinstance(pretrained, (list, tuple)):
        told["pretrained_window_sizes"] = list(pretrained[:stages])


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _refused(name: str, value: Any, where: str) -> VitportError:
    return VitportError(
        f"{where} has {name}={value!r} among timm's arguments, which is not supported: vitport converts Swin "
        "Transformers whose layers are timm's own and whose global_pool is avg."
    )
