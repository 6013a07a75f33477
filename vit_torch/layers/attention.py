"""Multi-head self-attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vit_spec import VitportError
from vit_torch.layers.initialization import make_linear
from vit_torch.layers.norm import NormLayer


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2), written out so that every step can be read.

    Args:
        dim: width D of the tokens; a multiple of ``num_heads``.
        num_heads: number of heads h.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor on the attention logits; ``None`` means ``head_dim ** -0.5``.
        proj_bias: whether the output projection has a bias.
        qk_norm: makes a norm over the head width, for queries and for keys (Dehghani et al. 2023).
        attn_norm: makes a norm between the heads and the output projection (Shleifer et al. 2021).
        attn_drop: dropout rate of the attention weights.
        proj_drop: dropout rate of the output.

    Raises:
        VitportError: if ``dim`` does not divide among the heads.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        proj_bias: bool = True,
        qk_norm: NormLayer | None = None,
        attn_norm: NormLayer | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_width(dim, num_heads)
        self.scale = self.head_dim**-0.5 if qk_scale is None else qk_scale
        self.attend = attend
        self.qkv = make_linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = nn.Identity() if qk_norm is None else qk_norm(self.head_dim)
        self.k_norm = nn.Identity() if qk_norm is None else qk_norm(self.head_dim)
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = nn.Identity() if attn_norm is None else attn_norm(dim)
        self.proj = make_linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, h, N, d) each
        q, k = self.q_norm(q), self.k_norm(k)
        x = self.attend(q, k, v, self.scale, self.attn_drop)
        return self.proj_drop(self.proj(self.norm(x)))


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, attn_drop: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Scaled dot-product attention of all heads: (B, h, N, d) each -> (B, N, h d)."""
    B, h, N, d = q.shape
    logits = (q * scale) @ k.transpose(-2, -1)  # (B, h, N, N)
    weights = attn_drop(logits.softmax(dim=-1))
    return (weights @ v).transpose(1, 2).reshape(B, N, h * d)


def attend_fused(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, attn_drop: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """:func:`attend` without the weights, none of which are dropped: by the kernel that PyTorch chooses."""
    del attn_drop
    heads = nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
    return heads.transpose(1, 2).flatten(2)  # (B, N, h d)


def set_attention(model: nn.Module, attend: Callable[..., torch.Tensor]) -> None:
    """Lets every block of the model that drops no attention weights use this function, in place.

    Args:
        model: keeps its answers, up to rounding.
        attend: :func:`attend`, :func:`attend_fused`, or one like them.
    """
    modules: list[Any] = list(model.modules())
    for module in modules:
        if hasattr(module, "attend") and module.attn_drop.p == 0:
            module.attend = attend


def head_width(dim: int, num_heads: int) -> int:
    """Width of one head.

    Raises:
        VitportError: if ``dim`` does not divide among the heads.
    """
    if dim % num_heads:
        raise VitportError(f"dim={dim} does not divide among num_heads={num_heads}: choose a multiple of {num_heads}.")
    return dim // num_heads
