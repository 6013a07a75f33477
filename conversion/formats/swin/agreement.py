"""Whether a format that states less than ``SwinConfig`` still states the same function at the model's image size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conversion.limits import unsupported_fields
from vit_spec import SwinConfig, VitportError
from vit_spec.swin.config import MarginRule, PadOrder, WindowRule
from vit_spec.swin.windows import windowings

Stated = Callable[[SwinConfig, tuple[int, int]], SwinConfig | None]
"""From a model and one window for all stages: the model that the format's code computes; ``None`` if it refuses."""

_WINDOWS = ("window_sizes", "pretrained_window_sizes", "window_rule", "pad_order")
"""Fields that are judged together."""


def same_function(first: SwinConfig, second: SwinConfig) -> bool:
    """Whether two models with the same weights give the same outputs at the first's image size.

    Args:
        second: differs from ``first`` in its windows, window rule and pad order alone.
    """
    own, other = (
        [
            (
                it.window,
                it.shift if depth > 1 else (0, 0),
                config.pad_order if it.padded != it.map_size and any(it.shift) and depth > 1 else None,
                _reference(config, stage, it.window),
            )
            for stage, (it, depth) in enumerate(zip(windowings(config), config.depths, strict=True))
        ]
        for config in (first, second.replace(image_size=first.image_size))
    )
    return own == other


def stated_by(rule: WindowRule, order: PadOrder) -> Stated:
    """Formats whose code applies one rule to one window."""

    def stated(config: SwinConfig, window: tuple[int, int]) -> SwinConfig | None:
        try:
            return config.replace(window_sizes=(window,) * config.num_stages, window_rule=rule, pad_order=order)
        except VitportError:  # the rule needs square windows
            return None

    return stated


def one_window(config: SwinConfig, stated: Stated, *, square: bool = True) -> SwinConfig | None:
    """The model of one window for all stages that computes the same; ``None`` if there is none.

    Args:
        stated: what the format's code makes of a window.
        square: the format states one side.
    """
    for window in dict.fromkeys((*config.window_sizes, *(it.window for it in windowings(config)))):
        if square and window[0] != window[1]:
            continue
        found = stated(config, window)
        if found is not None and same_function(config, found):
            return found
    return None


def unsupported(
    config: SwinConfig, version: int | None, *, margin: MarginRule = "pad", **allowed: tuple[Any, ...]
) -> list[str]:
    """As :func:`conversion.limits.unsupported_fields`, for a format of one version of Swin, or of both.

    Windows are left out: :func:`unlike_windows` judges them.

    Args:
        margin: what the format's code does with pixels that fill no patch.
    """
    if version is not None and config.version != version:
        return [f"version={config.version}"]
    held = {name: (getattr(config, name),) for name in (*_WINDOWS, "version")}
    held["margin_rule"] = (config.margin_rule if config.whole_patches else margin,)
    return unsupported_fields(config, **held | {"norm_eps": (1e-5,), "qkv_bias": (True, False)} | allowed)


def unlike_windows(config: SwinConfig, found: SwinConfig | None, why: str) -> list[str]:
    """A complaint about the model's windows if no model was found that computes the same.

    Args:
        why: what the format states.
    """
    if found is not None:
        return []
    sizes = ", ".join(f"{it.window[0]}x{it.window[1]}" for it in windowings(config))
    height, width = config.image_size
    return [
        f"windows of {sizes} at {height}x{width} pixels under window_rule={config.window_rule!r} and "
        f"pad_order={config.pad_order!r} ({why})"
    ]


def _reference(config: SwinConfig, stage: int, window: tuple[int, int]) -> tuple[int, ...]:
    """The window by which offsets are normalised."""
    pretrained = config.pretrained_window_sizes[stage]
    return tuple(own or side for own, side in zip(pretrained, window, strict=True)) if config.version == 2 else ()
