"""What a trainer's options beside the weights say against the model that was made of them.

The options of one's own training script have no fixed meaning, so they are no source of facts; but where they say
something else than the model's name does, the name is not to be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_spec import Config, ViTConfig, VitportError

_NAMES = {
    "num_heads": "num_heads", "heads": "num_heads", "n_heads": "num_heads", "nhead": "num_heads",
    "num_attention_heads": "num_heads", "layer_norm_eps": "norm_eps", "norm_eps": "norm_eps",
    "act_layer": "activation", "hidden_act": "activation", "global_pool": "pool",
}  # fmt: skip
"""Options as people call them → the field of ``ViTConfig`` that no shape shows."""
_VALUES = {"activation": ("gelu", "gelu_tanh", "quick_gelu", "silu", "relu"), "pool": ("token", "avg", "map")}
"""The words of a field; others say nothing."""
_MODELS = ("model", "net", "encoder", "backbone", "vit", "kwargs")
"""Parts of the names of options that are those of the model itself, not of a text tower or a loss."""
_OPTIONS = {"num_heads": "--heads", "norm_eps": "--eps", "activation": "--activation", "pool": "--pool"}


def check_hyperparameters(options: Mapping[str, Any], config: Config, origins: Mapping[str, str]) -> None:
    """Compare a trainer's options with the fields that came from the name of a model, or from nowhere but a convention.

    Args:
        options: the trainer's options, dicts in them too.
        config: what was made of the file.
        origins: config field → where its value comes from.

    Raises:
        VitportError: for the first that differs, with the way to state which of them is right.
    """
    if not isinstance(config, ViTConfig):
        return
    for name, value in _flat(options):
        field = _NAMES.get(name)
        if field is None or not origins.get(field, "").startswith("the model name"):
            continue
        words = _VALUES.get(field)
        says = isinstance(value, (int, float)) and not isinstance(value, bool) if words is None else value in words
        if says and value != getattr(config, field):
            raise VitportError(
                f"The trainer's options in the file say {name}={value!r}, but {origins[field]} says "
                f"{field}={getattr(config, field)!r}: state the one that is right ({_OPTIONS[field]})."
            )


def _flat(options: Mapping[str, Any], depth: int = 3) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            found += _flat(value, depth - 1) if depth and any(part in str(name).lower() for part in _MODELS) else []
        else:
            found.append((str(name), value))
    return found
