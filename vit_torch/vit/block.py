"""One Transformer layer."""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from vit_spec import ViTConfig
from vit_torch.layers.attention import Attention
from vit_torch.layers.differential import make_difference
from vit_torch.layers.drop_path import DropPath
from vit_torch.layers.layer_scale import LayerScale
from vit_torch.layers.mlp import Mlp, SwiGLU, SwiGLUPacked
from vit_torch.layers.norm import make_norm
from vit_torch.layers.relative import make_bias_network
from vit_torch.layers.residual import add
from vit_torch.layers.rotary import make_rotary

MLPS = {"plain": Mlp, "swiglu": SwiGLU, "swiglu_packed": SwiGLUPacked}


class Block(nn.Module):
    """A Transformer layer (Dosovitskiy et al. 2021, equations 2 and 3), which normalises the inputs of its two parts.

    Args:
        config: the model that the block belongs to.
        drop_path: rate of stochastic depth of both residual branches.
        index: number of the block, from 0.
    """

    def __init__(self, config: ViTConfig, drop_path: float = 0.0, index: int = 0) -> None:
        super().__init__()
        c, D = config, config.embed_dim
        norm = partial(make_norm, config)
        self.norm1 = norm(D)
        self.attn = make_attention(c, index)
        self.ls1 = nn.Identity() if c.layer_scale is None else LayerScale(D, c.layer_scale)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm(D)
        self.mlp = make_mlp(c)
        scale = None if c.scale_attention_only else c.layer_scale
        self.ls2 = nn.Identity() if scale is None else LayerScale(D, scale)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """(B, N, D) -> (B, N, D)."""
        x = add(x, self.drop_path1(self.ls1(self.attn(self.norm1(x)))))
        return add(x, self.drop_path2(self.ls2(self.mlp(self.norm2(x)))))


class PostNormBlock(Block):
    """A layer that normalises the outputs of its two parts (Liu et al. 2022, section 3.2)."""

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """(B, N, D) -> (B, N, D)."""
        x = add(x, self.drop_path1(self.ls1(self.norm1(self.attn(x)))))
        return add(x, self.drop_path2(self.ls2(self.norm2(self.mlp(x)))))


class OriginalBlock(Block):
    """A layer that normalises its two sums, ``LayerNorm(x + f(x))`` (Vaswani et al. 2017, section 3.1)."""

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """(B, N, D) -> (B, N, D)."""
        x = self.norm1(add(x, self.drop_path1(self.ls1(self.attn(x)))))
        return self.norm2(add(x, self.drop_path2(self.ls2(self.mlp(x)))))


def make_attention(config: ViTConfig, index: int) -> Attention:
    """The attention of a block, ``index`` counting blocks from 0."""
    c = config
    options = c.options("attention", partial(make_norm, config))
    parts = {
        "rel_pos": make_bias_network(c),
        "difference": make_difference(c, index),
        "rotary": make_rotary(c),
    }
    return Attention(c.embed_dim, c.num_heads, **options, **parts)


def make_mlp(config: ViTConfig) -> Mlp:
    """The MLP of a block."""
    c = config
    return MLPS[c.mlp](c.embed_dim, c.hidden_dim, **c.options("mlp", partial(make_norm, config)))
