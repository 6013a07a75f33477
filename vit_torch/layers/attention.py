"""Multi-head self-attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional

from vit_spec import VitportError
from vit_spec.vit.relative import count_offsets, shares
from vit_torch.layers.constant import make_constant
from vit_torch.layers.differential import Difference
from vit_torch.layers.initialization import make_linear, make_zeros
from vit_torch.layers.norm import NormLayer
from vit_torch.layers.qkv import project_qkv


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2), every step explicit.

    Args:
        dim: width D of the tokens; a multiple of ``num_heads``.
        num_heads: number of heads h.
        qkv_bias: whether queries, keys and values have a bias.
        qv_bias: whether queries and values have one, and keys none.
        relative_grid: rows and columns of the patches whose relative positions have biases in a table
            (:mod:`vit_spec.vit.relative`); ``None`` for no such table.
        relative_class: whether it has biases for a class token before the patches too.
        rel_pos: computes biases by relative position (:mod:`vit_torch.layers.relative`).
        qk_scale: factor on the attention logits; ``None`` means ``head_dim ** -0.5``.
        proj_bias: whether the output projection has a bias.
        qk_norm: makes a norm over the head width, for queries and for keys (Dehghani et al. 2023).
        difference: makes the attention differential (:mod:`vit_torch.layers.differential`).
        rotary: turns queries and keys after their norms (:mod:`vit_torch.layers.rotary`).
        attn_norm: makes a norm between the heads and the output projection (Shleifer et al. 2021).
        attn_drop: dropout rate of the attention weights.
        proj_drop: dropout rate of the output.

    Raises:
        VitportError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qv_bias: bool = False,
        relative_grid: tuple[int, int] | None = None,
        relative_class: bool = True,
        rel_pos: nn.Module | None = None,
        qk_scale: float | None = None,
        proj_bias: bool = True,
        qk_norm: NormLayer | None = None,
        difference: Difference | None = None,
        rotary: nn.Module | None = None,
        attn_norm: NormLayer | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_width(dim, num_heads)
        qk_dim = self.head_dim if difference is None else difference.half_dim
        self.scale = qk_dim**-0.5 if qk_scale is None else qk_scale
        self.attend = attend
        self.q_bias = make_zeros(dim) if qv_bias else None
        self.v_bias = make_zeros(dim) if qv_bias else None
        self.relative_class = relative_class
        offsets = None if relative_grid is None else count_offsets(relative_grid, relative_class)
        self.relative_position_bias_table = None if offsets is None else make_zeros(offsets, num_heads)
        self.shares = make_constant(shares(relative_grid)) if relative_grid is not None else None
        self.qkv = make_linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = nn.Identity() if qk_norm is None else qk_norm(qk_dim)
        self.k_norm = nn.Identity() if qk_norm is None else qk_norm(qk_dim)
        self.difference = difference
        self.rel_pos = rel_pos
        self.rotary = nn.Identity() if rotary is None else rotary
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = nn.Identity() if attn_norm is None else attn_norm(dim)
        self.proj = make_linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """(B, N, D) -> (B, N, D)."""
        q, k, v = project_qkv(self.qkv, x, self.num_heads, self.head_dim)  # (B, h, N, d) each
        if self.q_bias is not None and self.v_bias is not None:
            q, v = q + self._by_head(self.q_bias), v + self._by_head(self.v_bias)
        if self.difference is not None:
            q, k = self.difference.halves(q), self.difference.halves(k)
        q, k = self.rotary(self.q_norm(q)), self.rotary(self.k_norm(k))
        if self.difference is not None:
            q, k, v = self.difference.doubled(q, k, v)
        x = self.attend(q, k, v, self.scale, self.attn_drop, self.bias())
        if self.difference is not None:
            x = self.difference(x)
        return self.proj_drop(self.proj(self.norm(x)))

    def bias(self) -> Float[Tensor, "1 h N N"] | None:
        """What is added to the logits: the bias by relative position, if the layer has one."""
        if self.rel_pos is not None:
            return self.rel_pos()
        if self.relative_position_bias_table is None or self.shares is None:
            return None
        table = self.relative_position_bias_table  # (offsets, h)
        patches = table[self.shares[:, None] - self.shares + self.shares[-1]]  # (P, P, h)
        if not self.relative_class:
            return patches.permute(2, 0, 1)[None]
        from_class, to_class, own = table[-3, None, None], table[-2, None, None], table[-1, None, None]  # (1, 1, h)
        P, _, h = patches.shape
        first = torch.cat([own, from_class.expand(1, P, h)], dim=1)
        others = torch.cat([to_class.expand(P, 1, h), patches], dim=1)
        return torch.cat([first, others], dim=0).permute(2, 0, 1)[None]

    def _by_head(self, bias: Float[Tensor, " D"]) -> Float[Tensor, "h 1 d"]:
        return bias.reshape(self.num_heads, 1, self.head_dim)


def attend(
    q: Float[Tensor, "B h N d"],
    k: Float[Tensor, "B h N d"],
    v: Float[Tensor, "B h N d"],
    scale: float | Float[Tensor, "#B #h 1 1"],
    drop: Callable[[Tensor], Tensor],
    bias: Float[Tensor, "#W #h #N #N"] | None = None,
) -> Float[Tensor, "B N h*d"]:
    """Scaled dot-product attention of all heads: (B, h, N, d) each -> (B, N, h d), heads side by side.

    Args:
        q, k, v: queries, keys and values.
        scale: factor on the logits; an array, such as one factor per head, is (B, h, 1, 1) or broadcasts to it.
        drop: applied to the attention weights, (B, h, N, N).
        bias: added to the logits, for relative positions and masks; (W, h, N, N) or broadcasts to it, dtype as ``q``.
            Its first axis may also be a divisor W of B, as for the W windows of each image: it is repeated.
    """
    B, h, N, d = q.shape
    logits = (q * scale) @ k.transpose(-2, -1)  # (B, h, N, N)
    if bias is not None:
        logits = _add_bias(logits, bias)
    weights = drop(logits.softmax(dim=-1))
    return (weights @ v).transpose(1, 2).reshape(B, N, h * d)


def attend_fused(
    q: Float[Tensor, "B h N d"],
    k: Float[Tensor, "B h N d"],
    v: Float[Tensor, "B h N d"],
    scale: float | Float[Tensor, "#B #h 1 1"],
    drop: Callable[[Tensor], Tensor],
    bias: Float[Tensor, "#W #h #N #N"] | None = None,
) -> Float[Tensor, "B N h*d"]:
    """:func:`attend` by the kernel that PyTorch chooses. Attention weights are not stored, and none are dropped."""
    del drop
    B, h, N, d = q.shape
    q, scale = _scalar(q, scale)
    bias = None if bias is None else _repeated(bias, B)
    heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)  # (B, h, N, d)
    return heads.transpose(1, 2).reshape(B, N, h * d)


def set_attention(model: nn.Module, attend: Callable[..., Tensor]) -> None:
    """Sets the attention function of every block without attention dropout, in place.

    Args:
        model: its outputs stay the same, up to rounding.
        attend: :func:`attend`, :func:`attend_fused`, or one with their signature.
    """
    modules: list[Any] = list(model.modules())
    for module in modules:
        if hasattr(module, "attend") and module.attn_drop.p == 0:
            module.attend = attend


def head_width(dim: int, num_heads: int) -> int:
    """Width of one head.

    Raises:
        VitportError: if ``dim`` is not a multiple of ``num_heads``.
    """
    if dim % num_heads:
        raise VitportError(f"dim={dim} is not divisible by num_heads={num_heads}: choose a multiple of {num_heads}.")
    return dim // num_heads


def _add_bias(logits: Float[Tensor, "B h N N"], bias: Float[Tensor, "#W #h #N #N"]) -> Float[Tensor, "B h N N"]:
    """``logits + bias``, with its first axis repeated along the batch."""
    B, h, N, _ = logits.shape
    return (logits.reshape(-1, bias.shape[0], h, N, N) + bias).reshape(B, h, N, N)


@fx.wrap  # symbolic tracing records the call, because it cannot follow what depends on a shape
def _repeated(bias: Float[Tensor, "#W #h #N #N"], batch: int) -> Float[Tensor, "#B #h #N #N"]:
    """The bias with its first axis repeated along the batch, or 1."""
    return bias if bias.shape[0] == 1 else bias.tile((batch // bias.shape[0], 1, 1, 1))


def _scalar(q: Tensor, scale: float | Tensor) -> tuple[Tensor, float]:
    """Queries and a scale that is a number, as kernels need it: an array is multiplied into the queries."""
    return (q, scale) if isinstance(scale, float | int) else (q * scale, 1.0)
