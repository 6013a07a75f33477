"""What usually goes wrong in a port of a plain ViT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from typing import get_args

import numpy as np

from vit_parity.hypotheses import common, rotary
from vit_parity.hypotheses.common import ACTIVATION_NAMES, Hypothesis, Origin
from vit_parity.hypotheses.rounding import precision
from vit_parity.hypotheses.vit import key_bias
from vit_parity.replay import ReplayedModel
from vit_spec.vit.config import Activation, PositionResize


def hypotheses(model: ReplayedModel, stage: str, origin: Origin) -> Iterator[Hypothesis]:
    """Everything that may have gone wrong in a stage."""
    if stage == "embed":
        yield from common.images(model, origin)
        yield from _positions(model, origin)
    elif stage == "head":
        yield from _pooling(model)
    else:
        for found in (*_attention(model), *rotary.hypotheses(model), *_relative(model), *_mlp(model)):
            yield replace(found, scope="segments")
    for found in (*common.norms(model, but={"norm_pre"}), *precision(model)):
        yield replace(found, scope="model")
    in_block = stage not in ("embed", "head")
    for found in (*common.weights(model, stage), *key_bias.hypotheses(model, stage, origin)):
        yield replace(found, scope="segments" if in_block else "stage")


def _positions(s: ReplayedModel, origin: Origin) -> Iterator[Hypothesis]:
    c = s.config
    if c.pre_norm:
        yield Hypothesis("leaves out the norm before the first block", replace(s, skipped=s.skipped | {"norm_pre"}))
    if c.pos_embed == "none":
        return
    table, prefix = s.params["pos_embed"], c.num_positioned_prefix_tokens
    yield Hypothesis("adds no position embedding", s.with_param("pos_embed", np.zeros_like(table)))
    if prefix:
        yield Hypothesis("adds no position to the prefix tokens", replace(s, bare_prefix=True))
    rows, columns = c.grid_size
    turned = table[:, prefix:].reshape(1, rows, columns, -1).swapaxes(1, 2).reshape(1, rows * columns, -1)
    turned = np.concatenate([table[:, :prefix], turned], axis=1)
    yield Hypothesis("numbers the patches column by column in the position table", s.with_param("pos_embed", turned))
    yield from _resized(s, origin)


def _resized(s: ReplayedModel, origin: Origin) -> Iterator[Hypothesis]:
    """The position table resized to the images' grid by other methods."""
    from conversion import resize_position_table

    if origin.table is None or origin.table.config.grid_size == s.config.grid_size:
        return
    old = origin.table.config
    for method in get_args(PositionResize):
        if method != old.pos_embed_resize:
            table = resize_position_table(
                origin.table.params["pos_embed"].astype(np.float64),
                prefix=old.num_positioned_prefix_tokens,
                source_grid=old.grid_size,
                target_grid=s.config.grid_size,
                method=method,
            )
            yield Hypothesis(f"resizes the position table by {method}", s.with_param("pos_embed", table))


def _attention(s: ReplayedModel) -> Iterator[Hypothesis]:
    c = s.config
    for order in ("".join(order) for order in permutations("qkv")):
        q, k, v = (order.index(part) for part in "qkv")
        if (q, k, v) != s.qkv_places:
            yield Hypothesis(f"takes q, k, v in the order {', '.join(order)}", replace(s, qkv_places=(q, k, v)))
            yield Hypothesis(
                f"holds the weights of q, k, v in the order {', '.join(order)}",
                _qkv(s, lambda x, order=order: x[["qkv".index(part) for part in order]]),
            )
    yield Hypothesis("takes q, k, v head by head", replace(s, heads_first=not s.heads_first))
    yield Hypothesis("holds the weights of q, k, v head by head", _qkv(s, _heads_first(c.num_heads)))
    scales = {
        "the square root of the head width": c.qk_dim**-0.5,
        "the square root of the whole width": c.embed_dim**-0.5,
        "the head width": 1.0 / c.qk_dim,
        "nothing": 1.0,
    }
    for name, scale in scales.items():
        if scale != c.attention_scale:
            yield Hypothesis(f"divides the attention logits by {name}", replace(s, config=c.replace(qk_scale=scale)))


def _relative(s: ReplayedModel) -> Iterator[Hypothesis]:
    network = s.config.relative_hidden_dim is not None
    if not (s.config.relative_bias or network):
        return

    def without(name: str, x: np.ndarray) -> np.ndarray:
        return np.zeros_like(x) if ".rel_pos." in name or name.endswith(".relative_position_bias_table") else x

    yield Hypothesis("leaves out the biases by relative position", s.with_params(without))
    own = _NETWORK if network else _CLASS_TOKEN if s.config.class_token else {}
    for cause, deviation in (_RELATIVE | own).items():
        yield Hypothesis(cause, replace(s, deviations=s.deviations | {deviation}))


_RELATIVE = {"takes relative positions from key to query": "key to query"}
_CLASS_TOKEN = {"swaps the biases from and to the class token": "class rows swapped"}
_NETWORK = {
    "gives the network of biases the columns first": "columns first",
    "gives the network of biases offsets that are not log-spaced": "offsets not log-spaced",
    "scales the offsets to 8 at the window's edge, as Swin version 2 does": "offsets over the largest",
}
"""What B does → the deviation of :mod:`vit_parity.replay.vit`."""


_ORDERS = {
    "sequential": "norms before attention and MLP, not after",
    "post_norm": "norms after attention and MLP, not before",
    "original": "normalises the sums after attention and MLP",
}
"""Kind of block → what a model with such blocks does that one with other blocks does not."""


def _mlp(s: ReplayedModel) -> Iterator[Hypothesis]:
    c = s.config
    for name in get_args(Activation):
        if name != c.activation:
            yield Hypothesis(f"uses {ACTIVATION_NAMES[name]}", replace(s, config=c.replace(activation=name)))
    for order, what in _ORDERS.items():
        if c.block in _ORDERS and order != c.block:
            yield Hypothesis(what, replace(s, config=c.replace(block=order)))
    if c.mlp == "swiglu":
        swapped = {".fc1_g.": ".fc1_x.", ".fc1_x.": ".fc1_g."}
        params = {
            next((name.replace(a, b) for a, b in swapped.items() if a in name), name): array
            for name, array in s.params.items()
        }
        yield Hypothesis("swaps gate and value of the MLP", replace(s, params=params))
    if c.mlp == "swiglu_packed":
        yield Hypothesis(
            "swaps gate and value of the MLP",
            s.with_params(lambda name, x: np.roll(x, c.hidden_dim, axis=0) if ".mlp.fc1." in name else x),
        )


def _pooling(s: ReplayedModel) -> Iterator[Hypothesis]:
    c = s.config
    choices = {
        "the class token": ("token", False),
        "the mean of the patches": ("avg", False),
        "the mean of all tokens": ("avg", True),
    }
    for name, (pool, over_all) in choices.items():
        possible = c.class_token or pool == "avg"
        if possible and not c.distilled and c.pool in ("token", "avg") and (pool, over_all) != (c.pool, c.pool_prefix):
            changed = c.replace(pool=pool, pool_prefix=over_all)
            yield Hypothesis(f"pools {name}", replace(s, config=changed))
    if c.pre_logits_dim is not None:
        yield Hypothesis("leaves out the tanh of pre_logits", replace(s, skipped=s.skipped | {"pre_logits.act"}))


def _qkv(s: ReplayedModel, turn: Callable[[np.ndarray], np.ndarray]) -> ReplayedModel:
    """The rows of every joint layer reordered; ``turn`` gets them as (3, h d, …)."""

    def change(name: str, x: np.ndarray) -> np.ndarray:
        joint = ".attn.qkv." in name
        return turn(x.reshape(3, len(x) // 3, *x.shape[1:])).reshape(x.shape) if joint else x

    return s.with_params(change)


def _heads_first(heads: int) -> Callable[[np.ndarray], np.ndarray]:
    def turn(x: np.ndarray) -> np.ndarray:
        return x.reshape(3, heads, -1, *x.shape[2:]).swapaxes(0, 1)

    return turn
