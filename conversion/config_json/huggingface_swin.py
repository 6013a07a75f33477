"""transformers' config.json of Swin and Swin v2, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.config_json.huggingface import folder_json, model_facts
from vit_spec import SwinConfig, VitportError
from vit_spec.reading import height_and_width
from vit_spec.swin.config import WindowRule
from vit_spec.swin.windows import windowings

_DEFAULTS: dict[str, Any] = {
    "image_size": 224, "window_size": 7, "layer_norm_eps": 1e-5, "hidden_act": "gelu", "mlp_ratio": 4.0,
    "patch_size": 4, "depths": [2, 2, 6, 2],
}  # fmt: skip
"""Of transformers' SwinConfig and Swinv2Config."""
_FIELDS = {
    "image_size": "image_size", "patch_size": "patch_size", "num_channels": "in_channels", "embed_dim": "embed_dim",
    "num_heads": "num_heads", "depths": "depths", "mlp_ratio": "mlp_ratio", "qkv_bias": "qkv_bias",
    "hidden_dropout_prob": "drop_rate", "attention_probs_dropout_prob": "attn_drop_rate",
    "drop_path_rate": "drop_path_rate", "layer_norm_eps": "norm_eps", "use_absolute_embeddings": "absolute_pos_embed",
}  # fmt: skip
_RATES = ("drop_rate", "attn_drop_rate", "drop_path_rate")


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Config fields that both versions state alike.

    Raises:
        VitportError: for a window or an activation that is none.
    """
    own = {**_DEFAULTS, **config}
    stages, window = len(own["depths"]), own["window_size"]
    if not isinstance(window, int) or window < 1:
        raise VitportError(f"config.json has window_size={window!r}, but must have one side in tokens.")
    size = own["image_size"]
    return {
        "activation": model_facts({"hidden_act": own["hidden_act"]})["activation"],
        "norm_eps": own["layer_norm_eps"],
        "patch_norm_eps": 1e-5,
        "image_size": height_and_width(tuple(size) if isinstance(size, list) else size, "image_size"),
        "mlp_ratio": own["mlp_ratio"],
        "window_sizes": ((window, window),) * stages,
        **{ours: own[theirs] for theirs, ours in _FIELDS.items() if ours in _RATES and theirs in own},
    }


def windows_of_version_2(config: Mapping[str, Any]) -> dict[str, Any]:
    """The windows of a folder of version 2, whose code looks at the height alone.

    Raises:
        VitportError: for images whose windows no rule of ``SwinConfig`` states.
    """
    own = {**_DEFAULTS, "pretrained_window_sizes": [0, 0, 0, 0], **config}
    told = facts(config)
    (side, _), *_ = told["window_sizes"]
    stages = len(own["depths"])
    patch = own["patch_size"]
    sizes = SwinConfig().replace(
        version=2,
        image_size=told["image_size"],
        patch_size=patch[0] if isinstance(patch, list) else patch,
        depths=tuple(own["depths"]),
        num_heads=(1,) * stages,
        window_sizes=side,
        pretrained_window_sizes=_pretrained(own["pretrained_window_sizes"], stages),
    )
    found = by_height(sizes, (side, side))
    if found is None:
        height, width = told["image_size"]
        raise VitportError(
            f"config.json has image_size={height}x{width} and window_size={side}: for images higher than wide, or with "
            "maps of odd height, transformers takes some windows by a height rounded down, which this project does not "
            "compute. Give it the size of images that it is used for."
        )
    return {name: getattr(found, name) for name in ("window_sizes", "window_rule", "pretrained_window_sizes")}


def by_height(config: SwinConfig, window: tuple[int, int]) -> SwinConfig | None:
    """What transformers' code of version 2 makes of one window; ``None`` if no ``SwinConfig`` states it.

    A window that is higher than the map shrinks to its height on both sides, and is not shifted where it is as high.
    Heights are rounded down for this, where merging rounds them up.
    """
    side, _ = window
    heights = [config.image_size[0] // config.patch_size // 2**stage for stage in range(config.num_stages)]
    sides = tuple((max(1, min(side, height)),) * 2 for height in heights)
    shifts = tuple(0 if height <= side else side // 2 for height in heights)
    rules: dict[WindowRule, Any] = {"min": side, "never": side, "pad": sides}
    for rule, sizes in rules.items():
        found = config.replace(window_sizes=sizes, window_rule=rule, pad_order="pad_roll")
        if [(it.window, it.shift) for it in windowings(found)] == [
            (own, (shift, shift)) for own, shift in zip(sides, shifts, strict=True)
        ]:
            return found
    return None


def model_json(checkpoint: Checkpoint, stated: SwinConfig, *, model_type: str, architecture: str) -> dict[str, Any]:
    """The config.json of a model.

    Args:
        stated: the model as one window states it.
        model_type: transformers' key of the model.
        architecture: the class that loads it.
    """
    config = checkpoint.config
    assert isinstance(config, SwinConfig)
    fields = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
    height, width = config.image_size
    told = {
        **folder_json(checkpoint, model_type=model_type, architecture=architecture),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()},
        "image_size": height if height == width else [height, width],
        "window_size": max(map(max, stated.window_sizes)),
        "hidden_act": {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.activation, config.activation),
        "hidden_size": config.num_features,
        "num_layers": config.num_stages,
        "encoder_stride": config.patch_size * 2 ** (config.num_stages - 1),
    }
    if config.version == 2:
        told["pretrained_window_sizes"] = [side for side, _ in stated.pretrained_window_sizes]
    if "Backbone" in architecture:
        stages = [*config.stage_norms, config.num_stages - 1]
        told["out_features"] = [f"stage{stage + 1}" for stage in stages]
        told["out_indices"] = [stage + 1 for stage in stages]
    return told


def _pretrained(sizes: Any, stages: int) -> tuple[tuple[int, int], ...]:
    """One side or (height, width) for each stage; transformers' default has four whatever the number of stages."""
    sides = list(sizes or [0] * stages)
    if len(sides) < stages:
        raise VitportError(f"config.json has pretrained_window_sizes={sizes!r} for {stages} stages: give one for each.")
    return tuple(height_and_width(tuple(side) if isinstance(side, list) else side, "pretrained_window_sizes")
                 for side in sides[:stages])  # fmt: skip
