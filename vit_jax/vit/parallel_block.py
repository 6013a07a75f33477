"""One Transformer layer whose attention and MLP run side by side."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.layers.activation import activation
from vit_jax.layers.attention import attend
from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.dropout import Dropout, DropoutKeys
from vit_jax.layers.initialization import make_linear
from vit_jax.layers.layer_scale import LayerScale
from vit_jax.layers.norm import make_norm
from vit_jax.layers.xla.packed import Part, summed, unpacked
from vit_jax.layers.xla.rows import add
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
        self.parts = (Part((M,), cut=0), Part((3, c.num_heads, c.head_dim), cut=1))
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
        hidden, qkv = unpacked(self.in_proj, self.in_norm(x), *self.parts)
        if self.mlp_bias is not None:
            hidden = hidden + self.mlp_bias[...].astype(hidden.dtype)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # (B, h, N, d) each
        q, k = self.q_norm(q), self.k_norm(k)
        heads = self.attend(q, k, v, self.scale, partial(self.attn_drop, rngs=rngs))
        hidden = self.mlp_drop(self.mlp_act(hidden), rngs=rngs)
        branches = summed((self.attn_out_proj, heads), (self.mlp_out_proj, hidden))
        return add(x, self.drop_path(self.ls(branches), rngs=rngs))
