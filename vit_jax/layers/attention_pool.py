"""Pooling by attention: a learned query reads the patch tokens."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.layers.attention import head_width, softmax
from vit_jax.layers.initialization import make_linear, make_tokens
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import NormLayer


class AttentionPool(nnx.Module):
    """Multi-head attention pooling, MAP (Lee et al. 2019, section 3.2; for ViT: Zhai et al. 2022, section 3).

    Args:
        dim: width D of the tokens; a multiple of ``num_heads``.
        num_heads: number of heads h.
        hidden_dim: hidden width M of the MLP.
        norm: makes the norm in front of the MLP.
        act: name of the MLP's activation function.
        rngs: its stream ``params`` is drawn from.
        dtype: of the computation; the softmax is taken in at least float32.
        param_dtype: of the parameters.

    Raises:
        VitportError: if ``dim`` does not divide among the heads.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        norm: NormLayer,
        act: str = "gelu",
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        linear = partial(make_linear, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.num_heads = num_heads
        self.head_dim = head_width(dim, num_heads)
        self.scale = self.head_dim**-0.5
        self.latent = make_tokens(1, dim, rngs=rngs, param_dtype=param_dtype)
        self.q = linear(dim, dim)
        self.kv = linear(dim, 2 * dim)
        self.proj = linear(dim, dim)
        self.norm = norm(dim)
        self.mlp = Mlp(dim, hidden_dim, act, rngs=rngs, dtype=dtype, param_dtype=param_dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, N, D) -> (B, D)."""
        B, N, D = x.shape
        q = self.q(self.latent[...]).reshape(1, 1, self.num_heads, self.head_dim).swapaxes(1, 2)  # (1, h, 1, d)
        kv = self.kv(x).reshape(B, N, 2, self.num_heads, self.head_dim)
        k, v = kv.transpose(2, 0, 3, 1, 4)  # (B, h, N, d) each
        logits = (q * self.scale) @ k.swapaxes(-2, -1)  # (B, h, 1, N)
        weights = softmax(logits)
        x = (weights @ v).reshape(B, D)
        x = self.proj(x)
        return x + self.mlp(self.norm(x))
