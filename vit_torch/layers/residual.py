"""Sums along the residual stream."""

from __future__ import annotations

import operator
from functools import reduce

from jaxtyping import Float
from torch import Tensor, nn


def add(x: Float[Tensor, "*batch D"], branch: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
    """``x + branch``, (..., D) each."""
    return x + branch


def sum_projections(*projections: tuple[nn.Module, Float[Tensor, "*batch _"]]) -> Float[Tensor, "*batch D"]:
    """The sum of ``layer(x)`` over pairs of a linear layer and its inputs, (..., inputs) -> (..., D)."""
    return reduce(operator.add, (layer(x) for layer, x in projections))
