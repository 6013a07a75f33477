"""The MLP of a block, in three kinds."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.layers.activation import activation
from vit_jax.layers.dropout import Dropout, DropoutKeys
from vit_jax.layers.initialization import make_linear
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
        rngs: its stream ``params`` is drawn from.
        dtype: of the computation.
        param_dtype: of the parameters.
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
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        linear = partial(make_linear, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.fc1 = linear(dim, hidden_dim, bias=bias)
        self.act = activation(act)
        self.drop1 = Dropout(drop)
        self.norm = nnx.identity if norm is None else norm(hidden_dim)
        self.fc2 = linear(hidden_dim, dim, bias=bias)
        self.drop2 = Dropout(drop)

    def __call__(self, x: jax.Array, *, rngs: DropoutKeys | None = None) -> jax.Array:
        """(..., D) -> (..., D); ``rngs`` is needed where dropout acts."""
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
        rngs: its stream ``params`` is drawn from.
        dtype: of the computation.
        param_dtype: of the parameters.
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
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        linear = partial(make_linear, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.fc1_g = linear(dim, hidden_dim, bias=bias)
        self.fc1_x = linear(dim, hidden_dim, bias=bias)
        self.act = activation(act)
        self.drop1 = Dropout(drop)
        self.norm = nnx.identity if norm is None else norm(hidden_dim)
        self.fc2 = linear(hidden_dim, dim, bias=bias)
        self.drop2 = Dropout(drop)

    def __call__(self, x: jax.Array, *, rngs: DropoutKeys | None = None) -> jax.Array:
        """(..., D) -> (..., D); ``rngs`` is needed where dropout acts."""
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
        rngs: its stream ``params`` is drawn from.
        dtype: of the computation.
        param_dtype: of the parameters.
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
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        linear = partial(make_linear, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.fc1 = linear(dim, 2 * hidden_dim, bias=bias)
        self.act = activation(act)
        self.drop1 = Dropout(drop)
        self.norm = nnx.identity if norm is None else norm(hidden_dim)
        self.fc2 = linear(hidden_dim, dim, bias=bias)
        self.drop2 = Dropout(drop)

    def __call__(self, x: jax.Array, *, rngs: DropoutKeys | None = None) -> jax.Array:
        """(..., D) -> (..., D); ``rngs`` is needed where dropout acts."""
        gate, value = jnp.split(self.fc1(x), 2, axis=-1)  # (..., M) each
        x = self.act(gate) * value
        x = self.norm(self.drop1(x, rngs=rngs))
        return self.drop2(self.fc2(x), rngs=rngs)
