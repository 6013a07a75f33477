"""What a forward pass costs, and how long its sums are."""

from __future__ import annotations

import math

from vit_spec.parameter import BlockSizes
from vit_spec.swin.config import SwinConfig
from vit_spec.swin.windows import BIAS_HIDDEN, windowings


def forward_flops(config: SwinConfig) -> int:
    """See :func:`vit_spec.forward_flops`.

    Attention counts the padding of maps that are not multiples of their window. Version 2's network for the bias counts
    too, although a batch computes it once: 1 % of a model with windows of 24, less otherwise.
    """
    c = config
    rows, columns = c.map_sizes[0]
    multiply_adds = rows * columns * c.embed_dim * c.in_channels * c.patch_size**2
    for stage, (width, windowing) in enumerate(zip(c.widths, windowings(c), strict=True)):
        N, padded, n = math.prod(windowing.map_size), math.prod(windowing.padded), windowing.tokens
        attention = padded * (3 * width * width + 2 * n * width + width * width)
        if c.version == 2:
            attention += windowing.offsets * BIAS_HIDDEN * (2 + c.num_heads[stage])
        mlp = N * 2 * width * c.hidden_dim(stage)
        merging = N * 2 * width * width if stage else 0
        multiply_adds += c.depths[stage] * (attention + mlp) + merging
    multiply_adds += c.num_features * c.num_classes
    return 2 * multiply_adds


def longest_sum(config: SwinConfig) -> int:
    """See :func:`vit_spec.longest_sum`."""
    c = config
    merged = 2 * c.num_features if c.num_stages > 1 else 0
    windows = max(windowing.tokens for windowing in windowings(c))
    offsets = BIAS_HIDDEN if c.version == 2 else 0
    return max(
        c.hidden_dim(c.num_stages - 1), c.num_features, merged, windows, offsets, c.in_channels * c.patch_size**2
    )


def block_sizes(config: SwinConfig) -> tuple[BlockSizes, ...]:
    """See :func:`vit_spec.block_sizes`."""
    return tuple(
        BlockSizes(
            tokens=math.prod(windowing.map_size),
            width=width,
            heads=config.num_heads[stage],
            keys=windowing.tokens,
            hidden=config.hidden_dim(stage),
            saved=4 * width,
            saved_by_part=4 * width + 2 * config.hidden_dim(stage),
            plain_attention=False,
        )
        for stage, (width, windowing) in enumerate(zip(config.widths, windowings(config), strict=True))
    )
