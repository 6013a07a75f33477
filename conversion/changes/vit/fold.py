"""Factors multiplied into the layers beside them, so that formats without a place for the factors can hold the model.

Products are computed in float64 and rounded to the weights' own type once; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import ViTConfig, VitportError, segments

Fold = Literal["layer-scale", "qk-scale"]
"""``layer-scale``: the factors after attention and MLP go into their last linear layer, or into the norm after it.
``qk-scale``: a scale of attention that is not one over the root of the heads' width goes into the queries."""


def with_fold(checkpoint: Checkpoint, folds: Sequence[Fold]) -> Checkpoint:
    """The same model without some factors.

    Args:
        checkpoint: any.
        folds: what to fold.

    Raises:
        VitportError: if the model does not have such a factor, or a fold is unknown.
    """
    for fold in folds:
        if fold not in _FOLDS:
            raise VitportError(f"fold={fold!r} is unknown: choose from {', '.join(_FOLDS)}.")
        if not isinstance(checkpoint.config, ViTConfig):
            raise VitportError(f"A {checkpoint.config.family} has nothing that --fold {fold} could fold: leave it out.")
        checkpoint = _FOLDS[fold](checkpoint)
    return checkpoint


def _layer_scale(checkpoint: Checkpoint) -> Checkpoint:
    config, table = checkpoint.config, checkpoint.params
    if config.layer_scale is None:
        raise VitportError("The model has no layer scale to fold: leave out --fold layer-scale.")
    changed = dict(table.tensors)
    for scale, targets in _scaled_layers(config):
        factor = changed.pop(scale)
        for name in targets:
            if name in changed:
                changed[name] = _times(changed[name], factor.read)
    params = TensorTable(changed)
    folded = replace(checkpoint, config=config.replace(layer_scale=None, scale_attention_only=False), params=params)
    where = "norms" if config.block == "post_norm" else "projections"
    return folded.changed(f"folded the layer scale into the {where} that it multiplies")


def _scaled_layers(config: ViTConfig) -> list[tuple[str, tuple[str, ...]]]:
    """Each layer scale's name, and the tensors whose first axis it multiplies."""
    if config.block == "parallel":
        pairs = {"ls": ("attn_out_proj", "mlp_out_proj")}
    elif config.block == "branched":
        branches = range(config.branches)
        pairs = {f"attns.{at}.ls": (f"attns.{at}.attn.proj",) for at in branches}
        pairs |= {f"ffns.{at}.ls": (f"ffns.{at}.mlp.fc2",) for at in branches}
    elif config.block == "post_norm":
        pairs = {"ls1": ("norm1",), "ls2": ("norm2",)}
    else:
        pairs = {"ls1": ("attn.proj",), "ls2": ("mlp.fc2",)}
    if config.scale_attention_only:
        del pairs["ls2"]
    (segment,) = segments(config)
    blocks = [segment.block(at) for at in range(segment.count)]
    return [
        (f"{at}.{scale}.gamma", tuple(f"{at}.{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")))
        for at in blocks
        for scale, layers in pairs.items()
    ]


def _qk_scale(checkpoint: Checkpoint) -> Checkpoint:
    config = checkpoint.config
    usual = config.qk_dim**-0.5
    if config.attention_scale == usual:
        raise VitportError("The model's scale of attention is the usual one: leave out --fold qk-scale.")
    factor = config.attention_scale / usual
    changed = dict(checkpoint.params.tensors)
    (segment,) = segments(config)
    for at in (segment.block(index) for index in range(segment.count)):
        for leaf in ("weight", "bias"):
            name, rows = _queries(config, at, leaf)
            if name in changed:
                changed[name] = _times(changed[name], _factors(changed[name].shape[0], rows, factor))
        own = f"{at}.attn.q_bias"
        if own in changed and not config.qk_norm:  # a norm comes after it
            changed[own] = _times(changed[own], _factors(config.embed_dim, slice(None), factor))
    folded = replace(checkpoint, config=config.replace(qk_scale=None), params=TensorTable(changed))
    return folded.changed(f"folded the factor {factor:g} of the attention's logits into the queries")


def _queries(config: ViTConfig, at: str, leaf: str) -> tuple[str, slice]:
    """The tensor that the queries come out of last, and its rows for them."""
    parallel = config.block == "parallel"
    if config.qk_norm:
        return f"{at}.{'' if parallel else 'attn.'}q_norm.{leaf}", slice(None)
    first = config.hidden_dim if parallel else 0
    return f"{at}.{'in_proj' if parallel else 'attn.qkv'}.{leaf}", slice(first, first + config.embed_dim)


def _factors(count: int, rows: slice, factor: float) -> Callable[[], np.ndarray]:
    factors = np.ones(count)
    factors[rows] = factor
    return lambda: factors


def _times(tensor: Tensor, factors: Callable[[], np.ndarray]) -> Tensor:
    """Row ``i`` times factor ``i``, when it is read."""

    def read() -> np.ndarray:
        array = tensor.read()
        along = factors().astype(np.float64).reshape(-1, *[1] * (array.ndim - 1))
        return (array.astype(np.float64) * along).astype(array.dtype)

    return Tensor(tensor.shape, tensor.dtype, read)


_FOLDS: dict[str, Callable[[Checkpoint], Checkpoint]] = {"layer-scale": _layer_scale, "qk-scale": _qk_scale}
