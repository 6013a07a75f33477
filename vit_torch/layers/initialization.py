"""Parameters with their initial values; the numbers and their sources stand in ``vit_spec.vit.initialization``.

Drawn from the plain normal distribution: the truncation lies 100 standard deviations and more away, where nothing
is ever drawn, and samplers that go through the inverse error function return such a far bound itself about once
in ten million draws.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from vit_spec.vit.initialization import CONV_GAIN, LINEAR_STD, TOKEN_STD


def make_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer; weight (outputs, inputs)."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    _draw(layer.weight, LINEAR_STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def make_patch_conv(inputs: int, outputs: int, patch_size: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution over patches that do not overlap; weight (outputs, inputs, P, P).

    Kaiming normal over the fan-out: He et al. 2015, section 2.2, backward case.
    """
    layer = nn.Conv2d(inputs, outputs, kernel_size=patch_size, stride=patch_size, bias=bias)
    _draw(layer.weight, math.sqrt(CONV_GAIN / (outputs * patch_size**2)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def make_tokens(count: int, width: int) -> nn.Parameter:
    """Learned tokens, or rows of a position table: (1, count, width)."""
    tokens = nn.Parameter(torch.empty(1, count, width))
    _draw(tokens, TOKEN_STD)
    return tokens


def _draw(parameter: torch.Tensor, std: float) -> None:
    if not parameter.is_meta:  # nothing to draw there, and torch would import its whole compiler to say so
        nn.init.normal_(parameter, std=std)
