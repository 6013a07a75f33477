"""What a forward pass costs, and how long its sums are."""

from __future__ import annotations

from vit_spec.parameter import BlockSizes
from vit_spec.vit.config import ViTConfig
from vit_spec.vit.relative import count_offsets


def forward_flops(config: ViTConfig) -> int:
    """See :func:`vit_spec.forward_flops`."""
    c, D, N, P = config, config.embed_dim, config.num_tokens, config.num_patches
    fc1 = c.hidden_dim * (1 if c.mlp == "plain" else 2)
    patches = P * D * c.in_channels * c.patch_size**2
    products = 2 * N * N * D * (2 if c.differential else 1)
    attention = N * D * 3 * D + products + N * D * D
    mlp = N * D * (fc1 + c.hidden_dim)
    if c.relative_hidden_dim is not None:
        attention += count_offsets(c.grid_size, class_token=False) * c.relative_hidden_dim * (2 + c.num_heads)
    multiply_adds = patches + c.depth * (attention + mlp) * (c.branches if c.block == "branched" else 1)
    if c.pool == "map":
        R = N if c.pool_prefix else P
        multiply_adds += D * D + R * D * 2 * D + 2 * R * D + D * D + 2 * D * c.pool_hidden_dim
    features = c.pooled_dim
    if c.pre_logits_dim is not None:
        multiply_adds += features * c.pre_logits_dim
        features = c.pre_logits_dim
    multiply_adds += features * c.num_classes * (2 if c.distilled else 1)
    return 2 * multiply_adds


def longest_sum(config: ViTConfig) -> int:
    """See :func:`vit_spec.longest_sum`."""
    c = config
    return max(c.hidden_dim, c.pool_hidden_dim, c.pooled_dim, c.num_tokens, c.in_channels * c.patch_size**2)


def block_sizes(config: ViTConfig) -> tuple[BlockSizes]:
    """See :func:`vit_spec.block_sizes`."""
    c, D, M = config, config.embed_dim, config.hidden_dim
    branches = c.branches if c.block == "branched" else 1
    return (
        BlockSizes(
            tokens=c.num_tokens,
            width=D,
            heads=c.num_heads * branches,
            keys=c.num_tokens,
            hidden=M * branches,
            saved=2 * D if c.block == "parallel" else (2 + 2 * branches) * D,
            saved_by_part=branches * (4 * D + (2 if c.mlp == "plain" else 3) * M),
            plain_attention=not (c.relative_bias or c.relative_hidden_dim is not None or c.differential),
        ),
    )
