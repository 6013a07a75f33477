"""One Transformer layer with attention and MLP in parallel."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_spec import ViTConfig
from vit_torch.layers.activation import activation
from vit_torch.layers.attention import attend
from vit_torch.layers.differential import make_difference
from vit_torch.layers.drop_path import DropPath
from vit_torch.layers.initialization import make_linear
from vit_torch.layers.layer_scale import LayerScale
from vit_torch.layers.norm import make_norm
from vit_torch.layers.qkv import project_hidden_qkv
from vit_torch.layers.residual import add, sum_projections


class ParallelBlock(nn.Module):
    """``x + Attention(LN(x)) + MLP(LN(x))`` (Dehghani et al. 2023, ViT-22B, section 2).

    One linear layer computes the MLP's hidden units, queries, keys and values, in this order.

    Args:
        config: the model that the block belongs to.
        drop_path: rate of stochastic depth of the sum of both branches.
        index: number of the block, from 0.
    """

    def __init__(self, config: ViTConfig, drop_path: float = 0.0, index: int = 0) -> None:
        super().__init__()
        c, D, M = config, config.embed_dim, config.hidden_dim
        norm = partial(make_norm, config)
        self.hidden_dim = M
        self.num_heads = c.num_heads
        self.head_dim = c.head_dim
        self.scale = c.attention_scale
        self.attend = attend
        self.in_norm = norm(D)
        self.in_proj = make_linear(D, M + 3 * D, bias=c.qkv_bias)
        self.mlp_bias = None if c.qkv_bias else nn.Parameter(torch.zeros(M))
        self.q_norm = norm(c.qk_dim) if c.qk_norm else nn.Identity()
        self.k_norm = norm(c.qk_dim) if c.qk_norm else nn.Identity()
        self.difference = make_difference(c, index)
        self.attn_drop = nn.Dropout(c.attn_drop_rate)
        self.mlp_drop = nn.Dropout(c.drop_rate)
        self.mlp_act = activation(c.activation)
        self.attn_out_proj = make_linear(D, D, bias=c.proj_bias)
        self.mlp_out_proj = make_linear(M, D, bias=c.proj_bias)
        self.ls = nn.Identity() if c.layer_scale is None else LayerScale(D, c.layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """(B, N, D) -> (B, N, D)."""
        y = self.in_norm(x)
        hidden, q, k, v = project_hidden_qkv(self.in_proj, y, self.hidden_dim, self.num_heads, self.head_dim)
        if self.mlp_bias is not None:
            hidden = hidden + self.mlp_bias
        if self.difference is not None:
            q, k = self.difference.halves(q), self.difference.halves(k)
        q, k = self.q_norm(q), self.k_norm(k)  # (B, h, N, d) each
        if self.difference is not None:
            q, k, v = self.difference.doubled(q, k, v)
        heads = self.attend(q, k, v, self.scale, self.attn_drop)
        if self.difference is not None:
            heads = self.difference(heads)
        hidden = self.mlp_drop(self.mlp_act(hidden))
        branches = sum_projections((self.attn_out_proj, heads), (self.mlp_out_proj, hidden))
        return add(x, self.drop_path(self.ls(branches)))
