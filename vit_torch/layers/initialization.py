"""Parameters with their initial values; ``vit_spec.vit.initialization`` has the numbers and their sources.

The reference implementations truncate the normal distribution at 100 standard deviations or more, which never matters.
Here it is not truncated: samplers based on the inverse error function return such a distant bound itself about once in
ten million draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vit_spec import Parameter
from vit_spec.initialization import Constant, Distribution, Uniform
from vit_spec.vit.differential import STD as SHARE_STD
from vit_spec.vit.initialization import CONV_GAIN, LINEAR_STD, TOKEN_STD


def make_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer; weight (outputs, inputs)."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    _draw(layer.weight, LINEAR_STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def make_patch_conv(inputs: int, outputs: int, patch_size: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution over non-overlapping patches; weight (outputs, inputs, P, P).

    Kaiming normal over the fan-out: He et al. 2015, section 2.2, backward case.
    """
    layer = nn.Conv2d(inputs, outputs, kernel_size=patch_size, stride=patch_size, bias=bias)
    _draw(layer.weight, math.sqrt(CONV_GAIN / (outputs * patch_size**2)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def make_zeros(*shape: int) -> nn.Parameter:
    """A parameter of its own."""
    return nn.Parameter(torch.zeros(shape))


def make_tokens(count: int, width: int) -> nn.Parameter:
    """Learned tokens, or rows of a position table: (1, count, width)."""
    tokens = nn.Parameter(torch.empty(1, count, width))
    _draw(tokens, TOKEN_STD)
    return tokens


def make_share(width: int) -> nn.Parameter:
    """Of what the share of a second softmax is computed from, (width,)."""
    share = nn.Parameter(torch.empty(width))
    _draw(share, SHARE_STD)
    return share


def make_frequencies(num_heads: int, head_dim: int, theta: float) -> nn.Parameter:
    """Angles of a turn by column and by row, (2, h, d / 2): two axes at right angles, turned at random in each head.

    Heo et al. 2024, "Rotary position embedding for Vision Transformer", section 3.2, and their code.
    """
    sizes = theta ** (-torch.arange(head_dim // 4) * 4 / head_dim)  # (d / 4,)
    axis = torch.rand(num_heads, 1) * 2 * math.pi
    angles = [torch.cat([sizes * part(axis), sizes * part(axis + math.pi / 2)], -1) for part in (torch.cos, torch.sin)]
    return nn.Parameter(torch.stack(angles))


def initialize(model: nn.Module, values: Mapping[Parameter, Distribution]) -> None:
    """Draws new values for some of a model's parameters, in place; those on the meta device stay as they are."""
    parameters = dict(model.named_parameters())
    for parameter, distribution in values.items():
        if not parameters[parameter.name].is_meta:
            _fill(parameters[parameter.name], distribution)


def _fill(parameter: Tensor, distribution: Distribution) -> None:
    if isinstance(distribution, Constant):
        nn.init.constant_(parameter, distribution.value)
    elif isinstance(distribution, Uniform):
        nn.init.uniform_(parameter, -distribution.bound, distribution.bound)
    else:
        nn.init.normal_(parameter, std=distribution.std)


def _draw(parameter: Tensor, std: float) -> None:
    if not parameter.is_meta:  # no values to draw, and torch would import its compiler to do nothing
        nn.init.normal_(parameter, std=std)
