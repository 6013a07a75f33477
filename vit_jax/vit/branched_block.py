"""One Transformer layer of several attentions side by side, then as many MLPs."""

from __future__ import annotations

import operator
from functools import reduce

from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.dropout import DropoutKeys
from vit_jax.layers.initialization import Init
from vit_jax.layers.layer_scale import LayerScale
from vit_jax.layers.norm import make_norm
from vit_jax.layers.residual import add
from vit_jax.vit.block import make_attention, make_mlp
from vit_spec import ViTConfig


class AttentionBranch(nnx.Module):
    """An attention with the norm before it and the scale after it.

    Args:
        config: the model that the branch belongs to.
        drop_path: rate of its stochastic depth.
        index: number of the block, from 0.
        init: random numbers and dtypes.
    """

    def __init__(self, config: ViTConfig, drop_path: float, index: int, *, init: Init) -> None:
        c = config
        self.norm = make_norm(c, c.embed_dim, init=init)
        self.attn = make_attention(c, index, init=init)
        self.ls = nnx.identity if c.layer_scale is None else LayerScale(c.embed_dim, c.layer_scale, init=init)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: Float[Array, "B N D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """What is added, (B, N, D) -> (B, N, D); ``rngs`` is required if dropout or stochastic depth is active."""
        return self.drop_path(self.ls(self.attn(self.norm(x), rngs=rngs)), rngs=rngs)


class MlpBranch(nnx.Module):
    """An MLP with the norm before it and the scale after it.

    Args:
        config: the model that the branch belongs to.
        drop_path: rate of its stochastic depth.
        init: random numbers and dtypes.
    """

    def __init__(self, config: ViTConfig, drop_path: float, *, init: Init) -> None:
        c = config
        self.norm = make_norm(c, c.embed_dim, init=init)
        self.mlp = make_mlp(c, init=init)
        self.ls = nnx.identity if c.layer_scale is None else LayerScale(c.embed_dim, c.layer_scale, init=init)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: Float[Array, "B N D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """What is added, (B, N, D) -> (B, N, D); ``rngs`` is required if dropout or stochastic depth is active."""
        return self.drop_path(self.ls(self.mlp(self.norm(x), rngs=rngs)), rngs=rngs)


class BranchedBlock(nnx.Module):
    """``x + sum of attentions``, then ``x + sum of MLPs``.

    Touvron et al. 2022, "Three things everyone should know about Vision Transformers", section 3.

    Args:
        config: the model that the block belongs to.
        drop_path: rate of stochastic depth of each branch.
        index: number of the block, from 0.
        init: random numbers and dtypes.
    """

    def __init__(self, config: ViTConfig, drop_path: float = 0.0, index: int = 0, *, init: Init) -> None:
        branches = range(config.branches)
        self.attns = nnx.List(AttentionBranch(config, drop_path, index, init=init) for _ in branches)
        self.ffns = nnx.List(MlpBranch(config, drop_path, init=init) for _ in branches)

    def __call__(self, x: Float[Array, "B N D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """(B, N, D) -> (B, N, D); ``rngs`` is required if dropout or stochastic depth is active."""
        x = add(x, reduce(operator.add, (branch(x, rngs=rngs) for branch in self.attns)))
        return add(x, reduce(operator.add, (branch(x, rngs=rngs) for branch in self.ffns)))
