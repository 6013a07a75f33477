"""One Transformer layer whose attention and MLP run side by side."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.activation import activation
from vit_jax.attention import attend
from vit_jax.drop_path import DropPath
from vit_jax.dropout import Dropout, DropoutKeys
from vit_jax.initialization import make_linear
from vit_jax.layer_scale import LayerScale
from vit_jax.norm import make_norm
from vit_jax.rows import add
from vit_spec import ViTConfig


class ParallelBlock(nnx.Module):
    """``x + Attention(LN(x)) + MLP(LN(x))`` (Dehghani et al. 2023, ViT-22B, section 2).

    One linear layer makes the MLP's hidden vector, queries, keys and values, in this order.

    Args:
        config: the model that the block belongs to.
        drop_path: rate of stochastic depth of the sum of both branches.
        rngs: its stream ``params`` is drawn from.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    def __init__(
        self,
        config: ViTConfig,
        drop_path: float = 0.0,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        c, D, M = config, config.embed_dim, config.hidden_dim
        norm = partial(make_norm, config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        linear = partial(make_linear, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.num_heads = c.num_heads
        self.scale = c.attention_scale
        self.attend = attend
        self.parts = (M, D, D, D)
        self.in_norm = norm(D)
        self.in_proj = linear(D, M + 3 * D, bias=c.qkv_bias)
        self.mlp_bias = None if c.qkv_bias else nnx.Param(jnp.zeros(M, param_dtype))
        self.q_norm = norm(c.head_dim) if c.qk_norm else nnx.identity
        self.k_norm = norm(c.head_dim) if c.qk_norm else nnx.identity
        self.attn_drop = Dropout(c.attn_drop_rate)
        self.mlp_drop = Dropout(c.drop_rate)
        self.mlp_act = activation(c.activation)
        self.attn_out_proj = linear(D, D, bias=c.proj_bias)
        self.mlp_out_proj = linear(M, D, bias=c.proj_bias)
        self.ls = (
            nnx.identity
            if c.layer_scale is None
            else LayerScale(D, c.layer_scale, dtype=dtype, param_dtype=param_dtype)
        )
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, *, rngs: DropoutKeys | None = None) -> jax.Array:
        """(B, N, D) -> (B, N, D); ``rngs`` is needed where dropout or stochastic depth acts."""
        B, N, _ = x.shape
        M, D = self.parts[:2]
        hidden, q, k, v = jnp.split(self.in_proj(self.in_norm(x)), (M, M + D, M + 2 * D), axis=-1)
        if self.mlp_bias is not None:
            hidden = hidden + self.mlp_bias[...].astype(hidden.dtype)
        q, k, v = (part.reshape(B, N, self.num_heads, -1).swapaxes(1, 2) for part in (q, k, v))  # (B, h, N, d) each
        q, k = self.q_norm(q), self.k_norm(k)
        attention = self.attn_out_proj(self.attend(q, k, v, self.scale, partial(self.attn_drop, rngs=rngs)))
        mlp = self.mlp_out_proj(self.mlp_drop(self.mlp_act(hidden), rngs=rngs))
        return add(x, self.drop_path(self.ls(attention + mlp), rngs=rngs))
