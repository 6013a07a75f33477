"""One Transformer layer of several attentions side by side, then as many MLPs."""

from __future__ import annotations

import operator
from functools import reduce

from jaxtyping import Float
from torch import Tensor, nn

from vit_spec import ViTConfig
from vit_torch.layers.drop_path import DropPath
from vit_torch.layers.layer_scale import LayerScale
from vit_torch.layers.norm import make_norm
from vit_torch.layers.residual import add
from vit_torch.vit.block import make_attention, make_mlp


class AttentionBranch(nn.Module):
    """An attention with the norm before it and the scale after it.

    Args:
        config: the model that the branch belongs to.
        drop_path: rate of its stochastic depth.
        index: number of the block, from 0.
    """

    def __init__(self, config: ViTConfig, drop_path: float, index: int) -> None:
        super().__init__()
        c = config
        self.norm = make_norm(c, c.embed_dim)
        self.attn = make_attention(c, index)
        self.ls = nn.Identity() if c.layer_scale is None else LayerScale(c.embed_dim, c.layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """What is added, (B, N, D) -> (B, N, D)."""
        return self.drop_path(self.ls(self.attn(self.norm(x))))


class MlpBranch(nn.Module):
    """An MLP with the norm before it and the scale after it.

    Args:
        config: the model that the branch belongs to.
        drop_path: rate of its stochastic depth.
    """

    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        c = config
        self.norm = make_norm(c, c.embed_dim)
        self.mlp = make_mlp(c)
        self.ls = nn.Identity() if c.layer_scale is None else LayerScale(c.embed_dim, c.layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """What is added, (B, N, D) -> (B, N, D)."""
        return self.drop_path(self.ls(self.mlp(self.norm(x))))


class BranchedBlock(nn.Module):
    """``x + sum of attentions``, then ``x + sum of MLPs``.

    Touvron et al. 2022, "Three things everyone should know about Vision Transformers", section 3.

    Args:
        config: the model that the block belongs to.
        drop_path: rate of stochastic depth of each branch.
        index: number of the block, from 0.
    """

    def __init__(self, config: ViTConfig, drop_path: float = 0.0, index: int = 0) -> None:
        super().__init__()
        branches = range(config.branches)
        self.attns = nn.ModuleList(AttentionBranch(config, drop_path, index) for _ in branches)
        self.ffns = nn.ModuleList(MlpBranch(config, drop_path) for _ in branches)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """(B, N, D) -> (B, N, D)."""
        x = add(x, reduce(operator.add, (branch(x) for branch in self.attns)))
        return add(x, reduce(operator.add, (branch(x) for branch in self.ffns)))
