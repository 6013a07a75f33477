"""Multi-head self-attention within windows that may be shifted."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.attention import attend, head_width
from vit_jax.layers.constant import make_constant
from vit_jax.layers.dropout import Dropout, DropoutKeys
from vit_jax.layers.initialization import Init, make_linear, make_zeros
from vit_jax.layers.qkv import project_qkv
from vit_jax.layers.xla.attention import normalize
from vit_jax.swin.windows import cut, join
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


class WindowAttention(nnx.Module):
    """Attention within windows, with a bias by relative position.

    Version 1 (Liu et al. 2021, section 3.2) scales dot products by ``head_dim ** -0.5`` and reads the bias from a
    table. Version 2 (Liu et al. 2022, sections 3.2 and 3.3) multiplies cosines by a learned factor, and a small network
    computes the bias from log-spaced offsets.

    Args:
        config: the model that the layer belongs to.
        stage: number of the stage.
        shifted: whether windows are shifted by half their size.
        init: random numbers and dtypes; softmax, cosines, factor and bias are computed in at least float32.
    """

    def __init__(self, config: SwinConfig, stage: int, shifted: bool, *, init: Init) -> None:
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
        self.coordinates = make_constant(offset_coordinates(window, pretrained), np.float64) if self.cosine else None
        self.relative_position_bias_table = None if self.cosine else make_zeros(windowing.offsets, h, init=init)
        self.logit_scale = make_zeros(h, 1, 1, init=init) if self.cosine else None
        biased = self.cosine and c.qkv_bias
        self.q_bias = make_zeros(D, init=init) if biased else None
        self.v_bias = make_zeros(D, init=init) if biased else None
        self.qkv = make_linear(D, 3 * D, bias=c.qkv_bias and not self.cosine, init=init)
        self.cpb_mlp = _bias_network(h, init=init) if self.cosine else None
        self.attn_drop = Dropout(c.attn_drop_rate)
        self.proj = make_linear(D, D, init=init)
        self.proj_drop = Dropout(c.drop_rate)
        self.dtype = init.dtype

    def __call__(self, x: Float[Array, "B N D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """Tokens of maps, (B, N, D) -> (B, N, D); ``rngs`` is required if dropout is active."""
        windows = cut(x, self.windowing, self.shift, self.pad_order)  # (B windows, n, D)
        q, k, v = project_qkv(self.qkv, windows, self.num_heads, self.head_dim)  # (B windows, h, n, d) each
        if self.q_bias is not None and self.v_bias is not None:
            q, v = q + self._by_head(self.q_bias[...]), v + self._by_head(self.v_bias[...])
        scale = self.head_dim**-0.5
        if self.logit_scale is not None:
            q, k = normalize(q), normalize(k)
            scale = jnp.exp(jnp.clip(self.logit_scale[...], max=MAX_LOGIT_SCALE)).astype(self.dtype)
        heads = self.attend(q, k, v, scale, partial(self.attn_drop, rngs=rngs), self.bias())
        return join(self.proj_drop(self.proj(heads), rngs=rngs), self.windowing, self.shift, self.pad_order)

    def bias(self) -> Float[Array, "#windows h n n"]:
        """What is added to the logits: the bias by relative position, and -100 between regions of a shifted map."""
        bias = self.relative_bias()  # (1, h, n, n)
        if self.regions is None:
            return bias
        apart = self.regions[:, None, :, None] != self.regions[:, None, None, :]  # (windows, 1, n, n)
        return bias + jnp.where(apart, MASKED, 0.0).astype(bias.dtype)

    def relative_bias(self) -> Float[Array, "1 h n n"]:
        """The bias by relative position."""
        table = self._table()  # (offsets, h)
        rows = self.shares[:, None] - self.shares[:] + self.shares[-1]  # (n, n)
        return table[rows].transpose(2, 0, 1)[None].astype(self.dtype)

    def _table(self) -> Float[Array, "offsets h"]:
        if self.relative_position_bias_table is not None:
            return self.relative_position_bias_table[...]
        assert self.cpb_mlp is not None and self.coordinates is not None
        first, act, last = self.cpb_mlp
        hidden = act(first(self.coordinates[:].astype(first.dtype)))
        return BIAS_RANGE * jax.nn.sigmoid(last(hidden))

    def _by_head(self, bias: Float[Array, " D"]) -> Float[Array, "h 1 d"]:
        return bias.astype(self.dtype).reshape(self.num_heads, 1, self.head_dim)


def _bias_network(num_heads: int, *, init: Init) -> nnx.List:
    """From coordinates to biases before the sigmoid: (offsets, 2) -> (offsets, h)."""
    init = init.in_float32
    return nnx.List(
        [make_linear(2, BIAS_HIDDEN, init=init), nnx.relu, make_linear(BIAS_HIDDEN, num_heads, bias=False, init=init)]
    )
