"""Computation in a coarser dtype than the run claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import ml_dtypes
import numpy as np

from vit_parity.hypotheses.common import Hypothesis
from vit_parity.replay import ReplayedModel

Rounding = Callable[[np.ndarray], np.ndarray]


def precision(s: ReplayedModel) -> Iterator[Hypothesis]:
    """Matrix products that round their inputs, their results, or both, as autocast does."""
    coarser = {"bfloat16": (_to_bfloat16, 2.0**-8), "float16": (_to_float16, 2.0**-11)}
    for name, (rounded, u) in (coarser | {"TensorFloat-32": (_to_tf32, 2.0**-11)}).items():
        yield from _rounded(replace(s, coarse=u), f"rounds the inputs of {{}} to {name}", rounded, _same)
        if name in coarser:  # nothing is stored in TensorFloat-32
            yield from _rounded(replace(s, coarse=u), f"rounds the results of {{}} to {name}", _same, rounded)
            yield from _rounded(replace(s, coarse=u), f"computes {{}} in {name}", rounded, rounded)


def _rounded(s: ReplayedModel, cause: str, read: Rounding, stored: Rounding) -> Iterator[Hypothesis]:
    """In linear layers, or in attention. The bias is rounded only if both sides are; else it stays float32."""
    both = read is stored

    def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
        return stored(read(x) @ read(weight).T + (read(np.asarray(bias)) if both else bias))

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return stored(read(a) @ read(b))

    yield Hypothesis(cause.format("linear layers"), replace(s, linear=linear))
    yield Hypothesis(cause.format("attention's products"), replace(s, attention_product=product))


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _to_bfloat16(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def _to_float16(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float64)


def _to_tf32(x: np.ndarray) -> np.ndarray:
    """To 10 bits of mantissa, to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0xFFF + ((bits >> 13) & 1)) & ~np.uint64(0x1FFF)
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)
