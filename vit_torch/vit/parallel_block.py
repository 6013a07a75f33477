"""One Transformer layer whose attention and MLP run side by side."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from vit_spec import ViTConfig
from vit_torch.layers.activation import activation
from vit_torch.layers.attention import attend
from vit_torch.layers.drop_path import DropPath
from vit_torch.layers.initialization import make_linear
from vit_torch.layers.layer_scale import LayerScale
from vit_torch.layers.norm import make_norm


class ParallelBlock(nn.Module):
    """``x + Attention(LN(x)) + MLP(LN(x))`` (Dehghani et al. 2023, ViT-22B, section 2).

    One linear layer makes the MLP's hidden vector, queries, keys and values, in this order.

    Args:
        config: the model that the block belongs to.
        drop_path: rate of stochastic depth of the sum of both branches.
    """

    def __init__(self, config: ViTConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        c, D, M = config, config.embed_dim, config.hidden_dim
        norm = partial(make_norm, config)
        self.num_heads = c.num_heads
        self.scale = c.attention_scale
        self.attend = attend
        self.parts = (M, D, D, D)
        self.in_norm = norm(D)
        self.in_proj = make_linear(D, M + 3 * D, bias=c.qkv_bias)
        self.mlp_bias = None if c.qkv_bias else nn.Parameter(torch.zeros(M))
        self.q_norm = norm(c.head_dim) if c.qk_norm else nn.Identity()
        self.k_norm = norm(c.head_dim) if c.qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(c.attn_drop_rate)
        self.mlp_drop = nn.Dropout(c.drop_rate)
        self.mlp_act = activation(c.activation)
        self.attn_out_proj = make_linear(D, D, bias=c.proj_bias)
        self.mlp_out_proj = make_linear(M, D, bias=c.proj_bias)
        self.ls = nn.Identity() if c.layer_scale is None else LayerScale(D, c.layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        B, N, _ = x.shape
        hidden, q, k, v = self.in_proj(self.in_norm(x)).split(self.parts, dim=-1)
        if self.mlp_bias is not None:
            hidden = hidden + self.mlp_bias
        q, k, v = (part.reshape(B, N, self.num_heads, -1).transpose(1, 2) for part in (q, k, v))  # (B, h, N, d) each
        q, k = self.q_norm(q), self.k_norm(k)
        attention = self.attn_out_proj(self.attend(q, k, v, self.scale, self.attn_drop))
        mlp = self.mlp_out_proj(self.mlp_drop(self.mlp_act(hidden)))
        return x + self.drop_path(self.ls(attention + mlp))
