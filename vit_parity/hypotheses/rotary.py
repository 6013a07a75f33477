"""What usually goes wrong with rotary positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import ml_dtypes
import numpy as np

from vit_parity.hypotheses.common import Hypothesis
from vit_parity.replay import ReplayedModel
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary, Rotary

_OF_ALL = {
    "leaves out the rotary positions": "unturned",
    "turns other pairs of channels": "other pairs",
    "turns other pairs of channels than its table of angles is laid out for": "mixed pairs",
    "takes columns for rows in the angles": "other order",
    "turns queries and keys the other way": "other way",
    "turns the prefix tokens like the first patches": "prefix turned",
    "rounds cosines and sines to bfloat16": "coarse table",
}
_OF_DINOV3 = {
    "takes the corners of patches for their centres": "corners",
    "counts positions from 0 to 1, not from -1": "from 0 to 1",
    "scales positions by the longer side": "by longer side",
    "scales positions by the shorter side": "by shorter side",
    "leaves out 2 pi in the angles": "without 2 pi",
}
"""What B does → the deviation of :mod:`vit_parity.replay.rotary`."""
_THETAS = (10.0, 100.0, 10000.0)
_OFFSETS = (0.0, 0.5, 1.0)


def hypotheses(s: ReplayedModel) -> Iterator[Hypothesis]:
    """Other angles, other pairs, or other tokens that turn."""
    rotary: Rotary | None = s.config.rotary
    if rotary is None:
        return
    words = _OF_ALL | (_OF_DINOV3 if isinstance(rotary, DinoV3Rotary) else {})
    for cause, deviation in words.items():
        if s.config.num_prefix_tokens or deviation != "prefix turned":
            yield Hypothesis(cause, replace(s, deviations=s.deviations | {deviation}))
    for cause, other in _others(rotary):
        yield Hypothesis(cause, replace(s, config=s.config.replace(rotary=other)))


def _others(rotary: Rotary) -> Iterator[tuple[str, Rotary]]:
    if isinstance(rotary, MixedRotary):
        return
    for theta in _THETAS:
        if theta != rotary.theta:
            yield f"uses theta {theta:g}", replace(rotary, theta=theta)
    if isinstance(rotary, DinoV3Rotary):
        yield "counts positions as EVA-02 does", AxialRotary(pairs="halves")
        if rotary.periods is not None:
            yield "uses the periods of theta", replace(rotary, periods=None)
            coarse = tuple(np.array(rotary.periods).astype(ml_dtypes.bfloat16).astype(float))
            yield "rounds the periods to bfloat16", replace(rotary, periods=coarse)
        return
    for offset in _OFFSETS:
        if offset != rotary.offset:
            yield f"counts patches from {offset:g}", replace(rotary, offset=offset)
    if rotary.reference_grid is not None:
        yield "does not scale positions to the reference grid", replace(rotary, reference_grid=None)
