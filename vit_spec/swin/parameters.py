"""The canonical parameters of a Swin Transformer, under the names that timm has used since its version 0.9.

Patch merging stands at the beginning of the stage that it leads to.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from vit_spec.layer_parameters import Make, linear, norm
from vit_spec.parameter import Kind, Parameter, Segment, Stage
from vit_spec.swin.config import SwinConfig
from vit_spec.swin.windows import BIAS_HIDDEN, Windowing, windowings


def segments(config: SwinConfig) -> tuple[Segment, ...]:
    """One for each stage. Where every other block is shifted, pairs of blocks are alike."""
    periods = (
        (2 if depth % 2 == 0 else depth) if any(windowing.shift) else 1
        for depth, windowing in zip(config.depths, windowings(config), strict=True)
    )
    return tuple(
        Segment(f"layers.{stage}.blocks", depth, period)
        for stage, (depth, period) in enumerate(zip(config.depths, periods, strict=True))
    )


def parameters(config: SwinConfig) -> Iterator[Parameter]:
    """Every parameter of the model, in the order of its PyTorch ``state_dict``."""
    yield from _embedding(config, partial(Parameter, stage=Stage.EMBED, layer=0))
    layer = 0
    for stage, (segment, windowing) in enumerate(zip(segments(config), windowings(config), strict=True)):
        if stage:
            # Layer-wise decay counts merging with the block before it, as Microsoft's fine-tuning code does.
            yield from _merging(config, partial(Parameter, stage=Stage.MERGE, layer=layer), stage)
        for index in range(segment.count):
            layer += 1
            make = partial(Parameter, stage=Stage.BLOCK, layer=layer, segment=segment, index=index)
            yield from _block(config, make, segment.block(index), stage, windowing)
    after = partial(Parameter, layer=layer + 1)
    yield from _norms(config, partial(after, stage=Stage.POOL))
    if config.num_classes:
        make = partial(after, stage=Stage.CLASSIFIER)
        yield from linear(make, "head.fc", config.num_features, config.num_classes)


def _embedding(c: SwinConfig, make: Make) -> Iterator[Parameter]:
    D, (rows, columns) = c.embed_dim, c.map_sizes[0]
    if c.absolute_pos_embed:
        yield make(name="absolute_pos_embed", shape=(1, rows * columns, D), kind=Kind.TABLE)
    kernel = (D, c.in_channels, c.patch_size, c.patch_size)
    yield make(name="patch_embed.proj.weight", shape=kernel, kind=Kind.CONV)
    yield make(name="patch_embed.proj.bias", shape=(D,), kind=Kind.BIAS)
    if c.patch_norm:
        yield from norm(make, "patch_embed.norm", D)


def _merging(c: SwinConfig, make: Make, stage: int) -> Iterator[Parameter]:
    at, before, after = f"layers.{stage}.downsample", c.widths[stage - 1], c.widths[stage]
    yield from norm(make, f"{at}.norm", 4 * before if c.version == 1 else after)
    yield from linear(make, f"{at}.reduction", 4 * before, after, bias=False)


def _block(c: SwinConfig, make: Make, at: str, stage: int, windowing: Windowing) -> Iterator[Parameter]:
    D, M, h = c.widths[stage], c.hidden_dim(stage), c.num_heads[stage]
    yield from norm(make, f"{at}.norm1", D)
    attention = _biased if c.version == 1 else _cosine
    yield from attention(c, make, f"{at}.attn", D, h, windowing)
    yield from norm(make, f"{at}.norm2", D)
    yield from linear(make, f"{at}.mlp.fc1", D, M, "columns")
    yield from linear(make, f"{at}.mlp.fc2", M, D, "rows")


def _biased(c: SwinConfig, make: Make, at: str, D: int, h: int, windowing: Windowing) -> Iterator[Parameter]:
    """Attention of version 1."""
    table = f"{at}.relative_position_bias_table"
    yield make(name=table, shape=(windowing.offsets, h), kind=Kind.OFFSETS, split="columns")
    yield from linear(make, f"{at}.qkv", D, 3 * D, "packed", bias=c.qkv_bias)
    yield from linear(make, f"{at}.proj", D, D, "rows")


def _cosine(c: SwinConfig, make: Make, at: str, D: int, h: int, windowing: Windowing) -> Iterator[Parameter]:
    """Attention of version 2."""
    del windowing
    undecayed = partial(make, exempt=True)
    yield make(name=f"{at}.logit_scale", shape=(h, 1, 1), kind=Kind.SCALE)
    if c.qkv_bias:
        yield make(name=f"{at}.q_bias", shape=(D,), kind=Kind.BIAS, split="columns")
        yield make(name=f"{at}.v_bias", shape=(D,), kind=Kind.BIAS, split="columns")
    yield from linear(make, f"{at}.qkv", D, 3 * D, "packed", bias=False)
    yield from linear(undecayed, f"{at}.cpb_mlp.0", 2, BIAS_HIDDEN)
    yield from linear(undecayed, f"{at}.cpb_mlp.2", BIAS_HIDDEN, h, "columns", bias=False)
    yield from linear(make, f"{at}.proj", D, D, "rows")


def _norms(c: SwinConfig, make: Make) -> Iterator[Parameter]:
    for stage in c.stage_norms:
        yield from norm(make, f"stage_norms.{stage}", c.widths[stage])
    if c.final_norm:
        yield from norm(make, "norm", c.num_features)
