"""What a user may ask for so that a format can hold a model after all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from conversion.changes.activation import GELUS
from vit_spec import ViTConfig

_REMEDIES: dict[str, dict[str, Any]] = {
    "--positions prefix": {"pos_embed": "prefix"},
    "--positions patch": {"pos_embed": "patch"},
    "--activation erf": {"activation": "gelu"},
    "--activation tanh": {"activation": "gelu_tanh"},
}
"""Option of ``vitport convert``, and of the functions of ``conversion``, → what it makes of the config."""


def remedies(config: ViTConfig, cannot_hold: Sequence[Callable[[ViTConfig], list[str]]]) -> str:
    """The options with which one of several formats can hold the model, or nothing where no option is enough."""
    for complaints in cannot_hold:
        changed, helpful = config, []
        for option, changes in _REMEDIES.items():
            after = changed.replace(**changes)
            if _applies(config, changes) and len(complaints(after)) < len(complaints(changed)):
                changed, helpful = after, [*helpful, option]
        if not complaints(changed):
            return " ".join(helpful)
    return ""


def _applies(config: ViTConfig, changes: dict[str, Any]) -> bool:
    return config.activation in GELUS.values() if "activation" in changes else config.pos_embed != "none"
