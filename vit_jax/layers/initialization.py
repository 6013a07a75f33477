"""Parameters with their initial values; ``vit_spec.vit.initialization`` has the numbers and their sources.

The reference implementations truncate the normal distribution at 100 standard deviations or more, which never matters.
Here it is not truncated: samplers based on the inverse error function return such a distant bound itself about once in
ten million draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.layers.xla.rows import Linear
from vit_spec import Parameter, VitportError
from vit_spec.initialization import Constant, Distribution, Uniform
from vit_spec.vit.differential import STD as SHARE_STD
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

    @property
    def in_float32(self) -> Init:
        """For layers that compute in at least float32."""
        return replace(self, dtype=jnp.promote_types(self.dtype, jnp.float32))


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


def make_zeros(*shape: int, init: Init) -> nnx.Param:
    """A parameter of its own."""
    return nnx.Param(jnp.zeros(shape, init.param_dtype))


def make_tokens(count: int, width: int, *, init: Init) -> nnx.Param:
    """Learned tokens, or rows of a position table: (1, count, width)."""
    return nnx.Param(nnx.initializers.normal(TOKEN_STD)(init.rngs.params(), (1, count, width), init.param_dtype))


def make_share(width: int, *, init: Init) -> nnx.Param:
    """Of what the share of a second softmax is computed from, (width,)."""
    return nnx.Param(nnx.initializers.normal(SHARE_STD)(init.rngs.params(), (width,), init.param_dtype))


def make_frequencies(num_heads: int, head_dim: int, theta: float, *, init: Init) -> nnx.Param:
    """Angles of a turn by column and by row, (2, h, d / 2): two axes at right angles, turned at random in each head.

    Heo et al. 2024, "Rotary position embedding for Vision Transformer", section 3.2, and their code.
    """
    sizes = theta ** (-jnp.arange(head_dim // 4) * 4 / head_dim)  # (d / 4,)
    axis = jax.random.uniform(init.rngs.params(), (num_heads, 1)) * 2 * math.pi
    angles = [jnp.hstack([sizes * part(axis), sizes * part(axis + math.pi / 2)]) for part in (jnp.cos, jnp.sin)]
    return nnx.Param(jnp.stack(angles).astype(init.param_dtype))


def initialize(model: nnx.Module, values: Mapping[Parameter, Distribution], *, init: Init) -> None:
    """Draws new values for some of a model's parameters, in place."""
    state = nnx.state(model, nnx.Param)
    parameters = {"/".join(map(str, path)): parameter for path, parameter in nnx.to_flat_state(state)}
    for parameter, distribution in values.items():
        held = parameters[parameter.path]
        held.set_value(_drawn(distribution, held.get_value().shape, init))
    nnx.update(model, state)


def _drawn(distribution: Distribution, shape: tuple[int, ...], init: Init) -> jax.Array:
    if isinstance(distribution, Constant):
        return jnp.full(shape, distribution.value, init.param_dtype)
    if isinstance(distribution, Uniform):
        bound = distribution.bound
        return jax.random.uniform(init.rngs.params(), shape, init.param_dtype, -bound, bound)
    return nnx.initializers.normal(distribution.std)(init.rngs.params(), shape, init.param_dtype)
