"""One Transformer layer."""

from __future__ import annotations

from functools import partial

from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.attention import Attention
from vit_jax.layers.differential import make_difference
from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.dropout import DropoutKeys
from vit_jax.layers.initialization import Init
from vit_jax.layers.layer_scale import LayerScale
from vit_jax.layers.mlp import Mlp, SwiGLU, SwiGLUPacked
from vit_jax.layers.norm import make_norm
from vit_jax.layers.relative import make_bias_network
from vit_jax.layers.residual import add
from vit_jax.layers.rotary import make_rotary
from vit_spec import ViTConfig

MLPS = {"plain": Mlp, "swiglu": SwiGLU, "swiglu_packed": SwiGLUPacked}


class Block(nnx.Module):
    """A Transformer layer (Dosovitskiy et al. 2021, equations 2 and 3), which normalises the inputs of its two parts.

    Args:
        config: the model that the block belongs to.
        drop_path: rate of stochastic depth of both residual branches.
        index: number of the block, from 0.
        init: random numbers and dtypes.
    """

    def __init__(self, config: ViTConfig, drop_path: float = 0.0, index: int = 0, *, init: Init) -> None:
        c, D = config, config.embed_dim
        norm = partial(make_norm, config, init=init)
        self.norm1 = norm(D)
        self.attn = make_attention(c, index, init=init)
        self.ls1 = nnx.identity if c.layer_scale is None else LayerScale(D, c.layer_scale, init=init)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm(D)
        self.mlp = make_mlp(c, init=init)
        scale = None if c.scale_attention_only else c.layer_scale
        self.ls2 = nnx.identity if scale is None else LayerScale(D, scale, init=init)
        self.drop_path2 = DropPath(drop_path)

    def __call__(self, x: Float[Array, "B N D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """(B, N, D) -> (B, N, D); ``rngs`` is required if dropout or stochastic depth is active."""
        x = add(x, self.drop_path1(self.ls1(self.attn(self.norm1(x), rngs=rngs)), rngs=rngs))
        return add(x, self.drop_path2(self.ls2(self.mlp(self.norm2(x), rngs=rngs)), rngs=rngs))


class PostNormBlock(Block):
    """A layer that normalises the outputs of its two parts (Liu et al. 2022, section 3.2)."""

    def __call__(self, x: Float[Array, "B N D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """(B, N, D) -> (B, N, D); ``rngs`` is required if dropout or stochastic depth is active."""
        x = add(x, self.drop_path1(self.ls1(self.norm1(self.attn(x, rngs=rngs))), rngs=rngs))
        return add(x, self.drop_path2(self.ls2(self.norm2(self.mlp(x, rngs=rngs))), rngs=rngs))


class OriginalBlock(Block):
    """A layer that normalises its two sums, ``LayerNorm(x + f(x))`` (Vaswani et al. 2017, section 3.1)."""

    def __call__(self, x: Float[Array, "B N D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """(B, N, D) -> (B, N, D); ``rngs`` is required if dropout or stochastic depth is active."""
        x = self.norm1(add(x, self.drop_path1(self.ls1(self.attn(x, rngs=rngs)), rngs=rngs)))
        return self.norm2(add(x, self.drop_path2(self.ls2(self.mlp(x, rngs=rngs)), rngs=rngs)))


def make_attention(config: ViTConfig, index: int, *, init: Init) -> Attention:
    """The attention of a block, ``index`` counting blocks from 0."""
    c = config
    options = c.options("attention", partial(make_norm, config, init=init))
    parts = {
        "rel_pos": make_bias_network(c, init=init),
        "difference": make_difference(c, index, init=init),
        "rotary": make_rotary(c, init=init),
    }
    return Attention(c.embed_dim, c.num_heads, **options, **parts, init=init)


def make_mlp(config: ViTConfig, *, init: Init) -> Mlp:
    """The MLP of a block."""
    c = config
    return MLPS[c.mlp](c.embed_dim, c.hidden_dim, **c.options("mlp", partial(make_norm, config, init=init)), init=init)
