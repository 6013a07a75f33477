"""The activation functions of ``vit_spec.Activation``."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vit_jax.layers.xla.rows import at_least_float32
from vit_spec import VitportError


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The elementwise function of that name; it keeps shape and dtype.

    Raises:
        VitportError: for an unknown name.
    """
    if name not in _FUNCTIONS:
        raise VitportError(f"activation={name!r} is unknown: choose one of {', '.join(_FUNCTIONS)}.")
    return _FUNCTIONS[name]


@jax.custom_jvp
def _gelu(x: jax.Array) -> jax.Array:
    """``x * Phi(x)`` with the error function (Hendrycks & Gimpel 2016, section 2)."""
    # As PyTorch has it. The complementary error function, which jax.nn.gelu takes, costs three times as much on CPUs.
    z = at_least_float32(x)
    return (0.5 * z * (1.0 + jax.lax.erf(z * math.sqrt(0.5)))).astype(x.dtype)


@_gelu.defjvp
def _gelu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    z = at_least_float32(x)
    # Phi by the error function of -z: were it that of z, XLA would keep the forward pass's, as large as the whole
    # hidden layer, where computing it again is nearly free.
    Phi = 0.5 * (1.0 - jax.lax.erf(z * -math.sqrt(0.5)))
    phi = jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return _gelu(x), (Phi + z * phi).astype(x.dtype) * dx


def _gelu_tanh(x: jax.Array) -> jax.Array:
    """The same paper's tanh approximation; it differs from the exact form by up to 5e-4."""
    return jax.nn.gelu(x, approximate=True)


def _quick_gelu(x: jax.Array) -> jax.Array:
    """The same paper's sigmoid approximation, used by OpenAI's CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


_FUNCTIONS = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}
