"""The activation functions of ``vit_spec.Activation``."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array
from jaxtyping import Float

from vit_jax.layers.xla.activation import gelu
from vit_spec import VitportError


def activation(name: str) -> Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]:
    """The elementwise function of this name; shape and dtype are kept.

    Raises:
        VitportError: for an unknown name.
    """
    if name not in _FUNCTIONS:
        raise VitportError(f"activation={name!r} is unknown: choose one of {', '.join(_FUNCTIONS)}.")
    return _FUNCTIONS[name]


def _gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``x * Phi(x)`` with the error function (Hendrycks & Gimpel 2016, section 2)."""
    return gelu(x)


def _gelu_tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The tanh approximation of the same paper; it differs from the exact form by up to 5e-4."""
    return jax.nn.gelu(x, approximate=True)


def _quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The sigmoid approximation of the same paper, used by OpenAI's CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


_FUNCTIONS = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}
