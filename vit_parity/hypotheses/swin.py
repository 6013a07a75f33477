"""What usually goes wrong in a port of a Swin Transformer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import get_args

import numpy as np

from vit_parity.hypotheses import common
from vit_parity.hypotheses.common import ACTIVATION_NAMES, EPSILONS, Hypothesis, Origin
from vit_parity.hypotheses.rounding import precision
from vit_parity.points import path_in_block
from vit_parity.replay import ReplayedModel
from vit_spec import Kind, SwinConfig, VitportError, parameters
from vit_spec.activation import Activation
from vit_spec.swin.config import PadOrder, WindowRule

Swin = ReplayedModel[SwinConfig]
RULES = {
    "axis": "shrinks windows to the map along each axis (timm's rule)",
    "min": "shrinks windows to the shorter side of the map (Microsoft's rule)",
    "pad": "pads maps that are smaller than the window (torchvision's rule)",
    "never": "pads maps that are smaller than the window, and shifts them (the rule of detectors)",
}
PRETRAINED = (6, 7, 8, 12, 14, 16, 24)
"""Windows that published models were trained with."""
EVERY_BLOCK = {
    "unmasked": "leaves out the mask of shifted windows",  # first: without a shift there is no mask either
    "other way": "shifts windows the other way",
    "unshifted": "does not shift windows",
    "even blocks": "shifts the windows of even blocks in place of odd ones",
    "shift kept": "shifts windows that are as large as the map",
    "transposed": "indexes the relative position from the key to the query",
    "columns": "indexes the relative position column by column",
}
COSINE = {
    "unclamped": "does not clamp the logit scale",
    "no sigmoid": "leaves out 16 times the sigmoid of the bias",
    "sigmoid alone": "leaves out the factor 16 of the bias",
    "dot product": "uses scaled dot products in place of cosines",
    "lengths": "does not divide queries and keys by their lengths",
}


def hypotheses(model: Swin, stage: str, origin: Origin) -> Iterator[Hypothesis]:
    """Everything that may have gone wrong in a stage."""
    in_block = stage not in ("embed", "head")
    if stage == "embed":
        yield from common.images(model, origin)
    elif in_block:
        for found in (*_windows(model), *_attention(model), *_merging(model), *_mlp(model)):
            yield replace(found, scope="segments")
    for found in (*_norms(model), *precision(model)):
        yield replace(found, scope="model")
    for found in common.weights(model, stage):
        yield replace(found, scope="segments" if in_block else "stage")


def _deviating(s: Swin, causes: dict[str, str]) -> Iterator[Hypothesis]:
    for word, cause in causes.items():
        if word not in s.deviations:
            yield Hypothesis(cause, replace(s, deviations=s.deviations | {word}))


def _changed(s: Swin, cause: str, **changes: object) -> Iterator[Hypothesis]:
    """Another config, if it needs the same parameters."""
    try:
        config = s.config.replace(**changes)
    except VitportError:
        return
    if config != s.config and [(it.name, it.shape) for it in parameters(config)] == [
        (it.name, it.shape) for it in parameters(s.config)
    ]:
        yield Hypothesis(cause, replace(s, config=config))


def _windows(s: Swin) -> Iterator[Hypothesis]:
    yield from _deviating(s, EVERY_BLOCK)
    for rule in get_args(WindowRule):
        yield from _changed(s, RULES[rule], window_rule=rule)
    for order in get_args(PadOrder):
        when = "after" if order == "roll_pad" else "before"
        yield from _changed(s, f"pads maps {when} the shift", pad_order=order)


def _attention(s: Swin) -> Iterator[Hypothesis]:
    for order in ("".join(order) for order in permutations("qkv")):
        places = (order.index("q"), order.index("k"), order.index("v"))
        if places != s.qkv_places:
            yield Hypothesis(f"takes q, k, v in the order {', '.join(order)}", replace(s, qkv_places=places))
    yield Hypothesis("takes q, k, v head by head", replace(s, heads_first=not s.heads_first))
    if s.config.version == 1:
        return
    yield from _deviating(s, COSINE)
    yield from _changed(s, "normalises offsets by its own window", pretrained_window_sizes=0)
    for side in PRETRAINED:
        yield from _changed(s, f"normalises offsets by a pretraining window of {side}", pretrained_window_sizes=side)


def _merging(s: Swin) -> Iterator[Hypothesis]:
    yield from _deviating(s, {"row by row": "merges patches row by row"})

    def unfolded(name: str, x: np.ndarray) -> np.ndarray:
        """In the order of ``torch.nn.Unfold``: channel by channel, each of them row by row."""
        layer = name.split(".")[-2]
        wide = layer == "reduction" or (layer == "norm" and s.config.version == 1)
        if ".downsample." not in name or not wide:
            return x
        parts = x.reshape(*x.shape[:-1], 4, x.shape[-1] // 4)[..., [0, 2, 1, 3], :]
        return parts.swapaxes(-1, -2).reshape(x.shape)

    yield Hypothesis("holds the weights of patch merging in the order of nn.Unfold", s.with_params(unfolded))


def _mlp(s: Swin) -> Iterator[Hypothesis]:
    for name in get_args(Activation):
        yield from _changed(s, f"uses {ACTIVATION_NAMES[name]}", activation=name)
    place = "before" if s.config.version == 2 else "after"
    other = "after" if s.config.version == 2 else "before"
    yield from _deviating(s, {"norms moved": f"norms {place} attention and MLP, not {other}"})


def _norms(s: Swin) -> Iterator[Hypothesis]:
    for epsilon in EPSILONS:
        yield from _changed(s, f"uses epsilon {epsilon:.0e}", norm_eps=epsilon)
        yield from _changed(s, f"uses epsilon {epsilon:.0e} in embedding and merging", patch_norm_eps=epsilon)
    layers = {path_in_block(it.name).rpartition(".")[0] for it in parameters(s.config) if it.kind is Kind.NORM}
    for layer in sorted(layers):
        yield Hypothesis(f"leaves out the norm {layer}", replace(s, skipped=s.skipped | {layer}))
