"""What rounding may come to at each stage of two models."""

from __future__ import annotations

import numpy as np

from vit_parity.bound import MARGIN, growth
from vit_parity.porting.aligned import Aligned
from vit_parity.porting.layouts import apart
from vit_parity.porting.sides import Side
from vit_parity.porting.stages import Key, output_key
from vit_parity.ulp import ROUNDOFF, roundoff


class Limits:
    """What rounding may come to, from the start to each stage, in relative L2 distance of B from A."""

    def __init__(self, a: Side, b: Side, aligned: Aligned, slack: float = 1.0) -> None:
        self.u = max(roundoff(np.dtype(dtype)) for side in (a, b) if (dtype := _dtype(side)) in ROUNDOFF)
        self.growth = growth(_longest(a), self.u)
        source = a if a.wide is not None else b
        self._moved: dict[Key, float] = {}
        if source.wide is not None and source.model is not None:
            shaken = source.model.run(wide=True, shake=self.u)
            other = {output_key(pair.b): output_key(pair.a) for pair in aligned.pairs}
            for key, array in source.wide.values.items():
                if key in shaken.values and array.size and array.dtype.kind == "f":
                    name = key if source is a else other.get(key, key)
                    self._moved[name] = apart(shaken.values[key], array)
        stages = {output_key(pair.a): at for at, pair in enumerate(aligned.pairs, 1)}
        margin = slack * MARGIN * 2 * self.growth
        self.together = {key: margin * max(self._moved.get(key, self.u * at), self.u) for key, at in stages.items()}

    def exact(self, key: Key) -> float:
        """The same if both ran in float64: only constants are rounded."""
        return self.together[key] / self.growth


def _dtype(side: Side) -> str:
    return side.capture.facts.get("dtype", "float32")


def _longest(a: Side) -> int:
    """The longest sum, as far as shapes tell."""
    axes = [size for array in a.plain.outputs.values() for size in array.shape[1:]]
    return max(axes, default=1)
