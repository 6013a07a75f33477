"""Multi-head self-attention within windows that may be shifted."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vit_spec import SwinConfig
from vit_spec.swin.config import PadOrder
from vit_spec.swin.windows import (
    BIAS_HIDDEN,
    BIAS_RANGE,
    MASKED,
    MAX_LOGIT_SCALE,
    offset_coordinates,
    offset_shares,
    shift_regions,
    windowings,
)
from vit_torch.layers.attention import attend, head_width
from vit_torch.layers.constant import make_constant
from vit_torch.layers.initialization import make_linear, make_zeros
from vit_torch.layers.qkv import project_qkv
from vit_torch.swin.windows import cut, join


class WindowAttention(nn.Module):
    """Attention within windows, with a bias by relative position.

    Version 1 (Liu et al. 2021, section 3.2) scales dot products by ``head_dim ** -0.5`` and reads the bias from a
    table. Version 2 (Liu et al. 2022, sections 3.2 and 3.3) multiplies cosines by a learned factor, and a small network
    computes the bias from log-spaced offsets.

    Args:
        config: the model that the layer belongs to.
        stage: number of the stage.
        shifted: whether windows are shifted by half their size.
    """

    def __init__(self, config: SwinConfig, stage: int, shifted: bool) -> None:
        super().__init__()
        c, D, h = config, config.widths[stage], config.num_heads[stage]
        window, windowing = windowings(c)[stage].window, windowings(c)[stage]
        self.cosine = c.version == 2
        self.windowing = windowing
        self.shift = windowing.shift if shifted else (0, 0)
        self.pad_order: PadOrder = c.pad_order
        self.num_heads = h
        self.head_dim = head_width(D, h)
        self.attend = attend
        self.shares = make_constant(offset_shares(window))
        self.regions = make_constant(shift_regions(windowing)) if any(self.shift) else None
        pretrained = c.pretrained_window_sizes[stage]
        self.coordinates = make_constant(offset_coordinates(window, pretrained), torch.float64) if self.cosine else None
        self.relative_position_bias_table = None if self.cosine else make_zeros(windowing.offsets, h)
        self.logit_scale = make_zeros(h, 1, 1) if self.cosine else None
        biased = self.cosine and c.qkv_bias
        self.q_bias = make_zeros(D) if biased else None
        self.v_bias = make_zeros(D) if biased else None
        self.qkv = make_linear(D, 3 * D, bias=c.qkv_bias and not self.cosine)
        self.cpb_mlp = _bias_network(h) if self.cosine else None
        self.attn_drop = nn.Dropout(c.attn_drop_rate)
        self.proj = make_linear(D, D)
        self.proj_drop = nn.Dropout(c.drop_rate)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Tokens of maps, (B, N, D) -> (B, N, D)."""
        windows = cut(x, self.windowing, self.shift, self.pad_order)  # (B windows, n, D)
        q, k, v = project_qkv(self.qkv, windows, self.num_heads, self.head_dim)  # (B windows, h, n, d) each
        if self.q_bias is not None and self.v_bias is not None:
            q, v = q + self._by_head(self.q_bias), v + self._by_head(self.v_bias)
        scale = self.head_dim**-0.5
        if self.logit_scale is not None:
            q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
            scale = torch.exp(torch.clip(self.logit_scale, max=MAX_LOGIT_SCALE))
        heads = self.attend(q, k, v, scale, self.attn_drop, self.bias())
        return join(self.proj_drop(self.proj(heads)), self.windowing, self.shift, self.pad_order)

    def bias(self) -> Float[Tensor, "#windows h n n"]:
        """What is added to the logits: the bias by relative position, and -100 between regions of a shifted map."""
        bias = self.relative_bias()  # (1, h, n, n)
        if self.regions is None:
            return bias
        apart = self.regions[:, None, :, None] != self.regions[:, None, None, :]  # (windows, 1, n, n)
        return bias + torch.where(apart, MASKED, 0.0).to(bias.dtype)

    def relative_bias(self) -> Float[Tensor, "1 h n n"]:
        """The bias by relative position."""
        table = self._table()  # (offsets, h)
        rows = self.shares[:, None] - self.shares + self.shares[-1]  # (n, n)
        return table[rows].permute(2, 0, 1)[None]

    def _table(self) -> Float[Tensor, "offsets h"]:
        if self.relative_position_bias_table is not None:
            return self.relative_position_bias_table
        assert self.cpb_mlp is not None and self.coordinates is not None
        network: list[Any] = list(self.cpb_mlp)
        first, act, last = network
        hidden = act(first(self.coordinates.to(first.weight.dtype)))
        return BIAS_RANGE * torch.sigmoid(last(hidden))

    def _by_head(self, bias: Float[Tensor, " D"]) -> Float[Tensor, "h 1 d"]:
        return bias.reshape(self.num_heads, 1, self.head_dim)


def _bias_network(num_heads: int) -> nn.ModuleList:
    """From coordinates to biases before the sigmoid: (offsets, 2) -> (offsets, h)."""
    return nn.ModuleList([make_linear(2, BIAS_HIDDEN), nn.ReLU(), make_linear(BIAS_HIDDEN, num_heads, bias=False)])
