"""Initial values of the reference code, microsoft/Swin-Transformer.

Linear layers and tables: normal of standard deviation 0.02; biases 0. The patch embedding keeps PyTorch's default:
uniform, within one over the square root of the fan-in, the bias too. Version 2 starts with the factors of the norms
after residual branches at 0 and logit scales at ln 10.
"""

from __future__ import annotations

import math

from vit_spec.initialization import Constant, Distribution, Normal, Uniform
from vit_spec.parameter import Kind, Parameter, Stage
from vit_spec.swin.config import SwinConfig
from vit_spec.swin.parameters import parameters

STD = 0.02
LOGIT_SCALE = math.log(10.0)


def initial_values(config: SwinConfig) -> dict[Parameter, Distribution]:
    """What the values of each parameter are drawn from."""
    embedding = Uniform(1 / math.sqrt(config.in_channels * config.patch_size**2))
    kinds: dict[Kind, Distribution] = {
        Kind.LINEAR: Normal(STD),
        Kind.TABLE: Normal(STD),
        Kind.OFFSETS: Normal(STD),
        Kind.BIAS: Constant(0.0),
        Kind.NORM: Constant(1.0),
        Kind.SCALE: Constant(LOGIT_SCALE),
        Kind.CONV: embedding,
    }

    def values(it: Parameter) -> Distribution:
        if it.name == "patch_embed.proj.bias":
            return embedding
        if config.version == 2 and it.stage is Stage.BLOCK and it.kind is Kind.NORM:
            return Constant(0.0)
        return kinds[it.kind]

    return {it: values(it) for it in parameters(config)}
