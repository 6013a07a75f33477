"""The bias of the keys: dropped where the model has one, added where it has none.

Without rotary positions it changes nothing, for the softmax removes it; with them it does. DINOv3's authors keep one in
their files and hide it by a mask, which a port may forget.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vit_parity.bound import belongs
from vit_parity.hypotheses.common import Hypothesis, Origin
from vit_parity.replay import ReplayedModel, replay

_JOINT = ("attn.qkv", "in_proj")
"""Layers that give queries, keys and values, these last."""


def hypotheses(s: ReplayedModel, stage: str, origin: Origin) -> Iterator[Hypothesis]:
    """Both causes, whichever the model's own biases allow."""
    layers = [
        name.removesuffix(".weight")
        for name in s.params
        if name.endswith(tuple(f"{at}.weight" for at in _JOINT)) and belongs(name, stage, s.config)
    ]
    keys = slice(-2 * s.config.embed_dim, -s.config.embed_dim)
    biases = [s.params[name] for name in (f"{at}.bias" for at in layers) if name in s.params]
    if any(bias[keys].any() for bias in biases):
        yield Hypothesis("drops the bias of the keys", s.with_params(lambda name, x: _without(name, x, keys)))
        return
    changed = s
    for at in layers:
        if (extra := _extra(s, at, keys, stage, origin)) is not None:
            changed = _with(changed, at, keys, extra)
    if changed is not s:
        yield Hypothesis("adds a bias to the keys, which have none", changed)


def _without(name: str, x: np.ndarray, keys: slice) -> np.ndarray:
    if not name.endswith(tuple(f"{at}.bias" for at in _JOINT)):
        return x
    bare = x.copy()
    bare[keys] = 0
    return bare


def _extra(s: ReplayedModel, at: str, keys: slice, stage: str, origin: Origin) -> np.ndarray | None:
    """(D,): what the run's keys have too much in every token, or the bias in its own weights; ``None`` if neither is
    known."""
    shown = [name for name in _shown(s, at) if name in origin.activations]
    exact = replay(s, origin.activations, stage) if shown else {}
    for name in shown:
        known = origin.activations[name]
        if known.shape != exact[name].shape:
            continue
        gap = known.astype(np.float64) - exact[name]
        tokens = gap[..., keys] if name == at else gap.swapaxes(1, 2)
        by_token = tokens.reshape(*tokens.shape[:2], -1)  # (B, N, D)
        if by_token.shape[0] * by_token.shape[1] > 1:  # a single token's fault is always a constant
            return by_token.mean((0, 1))
    bias = (origin.own or {}).get(f"{at}.bias")
    return None if bias is None else bias[keys].astype(np.float64)


def _shown(s: ReplayedModel, at: str) -> list[str]:
    """Activations that show a bias of the keys as a constant: the joint layer's output, unless biases of queries and
    values alone stand beside it, and the keys, unless a norm comes before."""
    block = at.removesuffix(".in_proj").removesuffix(".attn.qkv")
    return [at] * (not s.config.qv_bias) + [f"{block}.attn.k"] * (not s.config.qk_norm)


def _with(s: ReplayedModel, at: str, keys: slice, extra: np.ndarray) -> ReplayedModel:
    if s.config.qv_bias:
        return s.with_param(f"{at.removesuffix('.qkv')}.k_bias", extra)
    name = f"{at}.bias"
    bias = s.params[name].copy() if name in s.params else np.zeros(len(s.params[f"{at}.weight"]))
    bias[keys] = extra
    return s.with_param(name, bias)
