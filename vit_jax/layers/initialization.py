"""Parameters with their initial values; the numbers and their sources stand in ``vit_spec.vit.initialization``.

Drawn from the plain normal distribution: the truncation lies 100 standard deviations and more away, where nothing
is ever drawn, and samplers that go through the inverse error function return such a far bound itself about once
in ten million draws.
"""

from __future__ import annotations

import math

from flax import nnx
from jax.typing import DTypeLike

from vit_jax.layers.xla.rows import Linear
from vit_spec.vit.initialization import CONV_GAIN, LINEAR_STD, TOKEN_STD


def make_linear(
    inputs: int, outputs: int, *, bias: bool = True, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike
) -> Linear:
    """A linear layer; kernel (inputs, outputs)."""
    return Linear(
        inputs,
        outputs,
        use_bias=bias,
        kernel_init=nnx.initializers.normal(LINEAR_STD),
        bias_init=nnx.initializers.zeros,
        rngs=rngs,
        dtype=dtype,
        param_dtype=param_dtype,
    )


def make_patch_conv(
    inputs: int,
    outputs: int,
    patch_size: int,
    *,
    bias: bool = True,
    rngs: nnx.Rngs,
    dtype: DTypeLike,
    param_dtype: DTypeLike,
) -> nnx.Conv:
    """A convolution over patches that do not overlap; kernel (P, P, inputs, outputs).

    Kaiming normal over the fan-out: He et al. 2015, section 2.2, backward case.
    """
    return nnx.Conv(
        inputs,
        outputs,
        kernel_size=(patch_size, patch_size),
        strides=(patch_size, patch_size),
        padding="VALID",
        use_bias=bias,
        kernel_init=nnx.initializers.normal(math.sqrt(CONV_GAIN / (outputs * patch_size**2))),
        bias_init=nnx.initializers.zeros,
        rngs=rngs,
        dtype=dtype,
        param_dtype=param_dtype,
    )


def make_tokens(count: int, width: int, *, rngs: nnx.Rngs, param_dtype: DTypeLike) -> nnx.Param:
    """Learned tokens, or rows of a position table: (1, count, width)."""
    return nnx.Param(nnx.initializers.normal(TOKEN_STD)(rngs.params(), (1, count, width), param_dtype))
