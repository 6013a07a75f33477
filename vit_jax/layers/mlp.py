"""The MLP of a block: plain, SwiGLU, or SwiGLU with packed weights."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.activation import activation
from vit_jax.layers.dropout import Dropout, DropoutKeys
from vit_jax.layers.initialization import Init, make_linear
from vit_jax.layers.norm import NormLayer


class Mlp(nnx.Module):
    """``fc2(act(fc1(x)))`` (Dosovitskiy et al. 2021, equation 3).

    Args:
        dim: width D of the tokens.
        hidden_dim: width M between the layers.
        act: name of the activation function.
        bias: whether the linear layers have biases.
        norm: makes a norm between activation and ``fc2`` (Shleifer et al. 2021); ``None`` for none.
        drop: dropout rate after the activation and after ``fc2``.
        init: random numbers and dtypes.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        act: str = "gelu",
        bias: bool = True,
        norm: NormLayer | None = None,
        drop: float = 0.0,
        *,
        init: Init,
    ) -> None:
        self.fc1 = make_linear(dim, hidden_dim, bias=bias, init=init)
        self.act = activation(act)
        self.drop1 = Dropout(drop)
        self.norm = nnx.identity if norm is None else norm(hidden_dim)
        self.fc2 = make_linear(hidden_dim, dim, bias=bias, init=init)
        self.drop2 = Dropout(drop)

    def __call__(self, x: Float[Array, "*batch D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "*batch D"]:
        """(..., D) -> (..., D); ``rngs`` is required if dropout is active."""
        x = self.act(self.fc1(x))  # (..., M)
        x = self.norm(self.drop1(x, rngs=rngs))
        return self.drop2(self.fc2(x), rngs=rngs)


class SwiGLU(nnx.Module):
    """``fc2(act(fc1_g(x)) * fc1_x(x))`` (Shazeer 2020, section 2), SwiGLU where ``act`` is SiLU.

    Args:
        dim: width D of the tokens.
        hidden_dim: width M of gate and value.
        act: name of the gate's activation function.
        bias: whether the linear layers have biases.
        norm: makes a norm between product and ``fc2``; ``None`` for none.
        drop: dropout rate after the product and after ``fc2``.
        init: random numbers and dtypes.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        act: str = "silu",
        bias: bool = True,
        norm: NormLayer | None = None,
        drop: float = 0.0,
        *,
        init: Init,
    ) -> None:
        self.fc1_g = make_linear(dim, hidden_dim, bias=bias, init=init)
        self.fc1_x = make_linear(dim, hidden_dim, bias=bias, init=init)
        self.act = activation(act)
        self.drop1 = Dropout(drop)
        self.norm = nnx.identity if norm is None else norm(hidden_dim)
        self.fc2 = make_linear(hidden_dim, dim, bias=bias, init=init)
        self.drop2 = Dropout(drop)

    def __call__(self, x: Float[Array, "*batch D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "*batch D"]:
        """(..., D) -> (..., D); ``rngs`` is required if dropout is active."""
        x = self.act(self.fc1_g(x)) * self.fc1_x(x)  # (..., M)
        x = self.norm(self.drop1(x, rngs=rngs))
        return self.drop2(self.fc2(x), rngs=rngs)


class SwiGLUPacked(nnx.Module):
    """:class:`SwiGLU` with gate and value in one layer ``fc1``, the gate first (DINOv2's giant model).

    Args:
        dim: width D of the tokens.
        hidden_dim: width M of gate and value; ``fc1`` is twice as wide.
        act: name of the gate's activation function.
        bias: whether the linear layers have biases.
        norm: makes a norm between product and ``fc2``; ``None`` for none.
        drop: dropout rate after the product and after ``fc2``.
        init: random numbers and dtypes.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        act: str = "silu",
        bias: bool = True,
        norm: NormLayer | None = None,
        drop: float = 0.0,
        *,
        init: Init,
    ) -> None:
        self.fc1 = make_linear(dim, 2 * hidden_dim, bias=bias, init=init)
        self.act = activation(act)
        self.drop1 = Dropout(drop)
        self.norm = nnx.identity if norm is None else norm(hidden_dim)
        self.fc2 = make_linear(hidden_dim, dim, bias=bias, init=init)
        self.drop2 = Dropout(drop)

    def __call__(self, x: Float[Array, "*batch D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "*batch D"]:
        """(..., D) -> (..., D); ``rngs`` is required if dropout is active."""
        gate, value = jnp.split(self.fc1(x), 2, axis=-1)  # (..., M) each
        x = self.act(gate) * value
        x = self.norm(self.drop1(x, rngs=rngs))
        return self.drop2(self.fc2(x), rngs=rngs)
