"""Parameters with their initial values; ``vit_spec.vit.initialization`` has the numbers and their sources.

The reference implementations truncate the normal distribution at 100 standard deviations or more, which never matters.
Here it is not truncated: samplers based on the inverse error function return such a distant bound itself about once in
ten million draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.layers.xla.rows import Linear
from vit_spec import VitportError
from vit_spec.vit.initialization import CONV_GAIN, LINEAR_STD, TOKEN_STD


@dataclass(frozen=True)
class Init:
    """What every layer's constructor takes besides the arguments of its PyTorch twin.

    Raises:
        VitportError: for float64 without JAX's 64-bit mode, where JAX would silently use float32.
    """

    rngs: nnx.Rngs
    """Parameters are drawn from its stream ``params``."""
    dtype: DTypeLike = jnp.float32
    """Of the computation."""
    param_dtype: DTypeLike = jnp.float32
    """Of the parameters."""

    def __post_init__(self) -> None:
        for name, dtype in {"dtype": self.dtype, "param_dtype": self.param_dtype}.items():
            if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
                raise VitportError(
                    f"{name}={jnp.dtype(dtype).name} needs JAX's 64-bit mode: call "
                    "jax.config.update('jax_enable_x64', True) first."
                )


def make_linear(inputs: int, outputs: int, *, bias: bool = True, init: Init) -> Linear:
    """A linear layer; kernel (inputs, outputs)."""
    return Linear(
        inputs,
        outputs,
        use_bias=bias,
        kernel_init=nnx.initializers.normal(LINEAR_STD),
        bias_init=nnx.initializers.zeros,
        rngs=init.rngs,
        dtype=init.dtype,
        param_dtype=init.param_dtype,
    )


def make_patch_conv(inputs: int, outputs: int, patch_size: int, *, bias: bool = True, init: Init) -> nnx.Conv:
    """A convolution over non-overlapping patches; kernel (P, P, inputs, outputs).

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
        rngs=init.rngs,
        dtype=init.dtype,
        param_dtype=init.param_dtype,
    )


def make_tokens(count: int, width: int, *, init: Init) -> nnx.Param:
    """Learned tokens, or rows of a position table: (1, count, width)."""
    return nnx.Param(nnx.initializers.normal(TOKEN_STD)(init.rngs.params(), (1, count, width), init.param_dtype))
