"""The canonical parameters of a Vision Transformer, under timm's names.

Readers are checked against this list, counts are taken from it, and both frameworks are tested against it. Nothing
else in the project states a parameter's shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from vit_spec.layer_parameters import Make, linear, norm
from vit_spec.parameter import Kind, Parameter, Segment, Stage
from vit_spec.vit.config import ViTConfig
from vit_spec.vit.relative import count_offsets
from vit_spec.vit.rotary import MixedRotary


def segments(config: ViTConfig) -> tuple[Segment]:
    """All blocks are alike, but for the numbers of differential attention."""
    return (Segment("blocks", config.depth, config.depth if config.differential else 1),)


def parameters(config: ViTConfig) -> Iterator[Parameter]:
    """Every parameter of the model, in the order of its PyTorch ``state_dict``."""
    (segment,) = segments(config)
    yield from _embedding(config, partial(Parameter, stage=Stage.EMBED, layer=0))
    block = {"parallel": _parallel_block, "branched": _branched_block}.get(config.block, _block)
    for index in range(segment.count):
        make = partial(Parameter, stage=Stage.BLOCK, layer=index + 1, segment=segment, index=index)
        yield from block(config, make, segment.block(index))
    after = partial(Parameter, layer=segment.count + 1)
    yield from _pooling(config, partial(after, stage=Stage.POOL))
    yield from _classifier(config, partial(after, stage=Stage.CLASSIFIER))


def _embedding(c: ViTConfig, make: Make) -> Iterator[Parameter]:
    D = c.embed_dim
    if c.class_token:
        yield make(name="cls_token", shape=(1, 1, D), kind=Kind.TOKEN)
    if c.distilled:
        yield make(name="dist_token", shape=(1, 1, D), kind=Kind.TOKEN)
    if c.register_tokens:
        yield make(name="reg_token", shape=(1, c.register_tokens, D), kind=Kind.TOKEN)
    if c.pos_embed != "none":
        rows = c.num_positioned_prefix_tokens + c.num_patches
        yield make(name="pos_embed", shape=(1, rows, D), kind=Kind.TABLE)
    if c.pixel_norm:
        yield from _norm(c, make, "patch_embed.pixel_norm", c.patch_size**2 * c.in_channels)
    kernel = (D, c.in_channels, c.patch_size, c.patch_size)
    yield make(name="patch_embed.proj.weight", shape=kernel, kind=Kind.CONV)
    if c.patch_bias:
        yield make(name="patch_embed.proj.bias", shape=(D,), kind=Kind.BIAS)
    if c.patch_norm:
        yield from _norm(c, make, "patch_embed.norm", D)
    if c.pre_norm:
        yield from _norm(c, make, "norm_pre", D)


def _block(c: ViTConfig, make: Make, at: str) -> Iterator[Parameter]:
    D = c.embed_dim
    yield from _norm(c, make, f"{at}.norm1", D)
    yield from _attention(c, make, f"{at}.attn")
    yield from _layer_scale(c, make, f"{at}.ls1")
    yield from _norm(c, make, f"{at}.norm2", D)
    yield from _mlp(c, make, f"{at}.mlp")
    if not c.scale_attention_only:
        yield from _layer_scale(c, make, f"{at}.ls2")


def _branched_block(c: ViTConfig, make: Make, at: str) -> Iterator[Parameter]:
    for group, layer, parts in (("attns", "attn", _attention), ("ffns", "mlp", _mlp)):
        for branch in range(c.branches):
            yield from _norm(c, make, f"{at}.{group}.{branch}.norm", c.embed_dim)
            yield from parts(c, make, f"{at}.{group}.{branch}.{layer}")
            yield from _layer_scale(c, make, f"{at}.{group}.{branch}.ls")


def _layer_scale(c: ViTConfig, make: Make, at: str) -> Iterator[Parameter]:
    if c.layer_scale is not None:
        yield make(name=f"{at}.gamma", shape=(c.embed_dim,), kind=Kind.SCALE)


def _attention(c: ViTConfig, make: Make, at: str) -> Iterator[Parameter]:
    D = c.embed_dim
    if c.qv_bias:
        yield make(name=f"{at}.q_bias", shape=(D,), kind=Kind.BIAS, split="columns")
        yield make(name=f"{at}.v_bias", shape=(D,), kind=Kind.BIAS, split="columns")
    if c.relative_grid is not None:
        offsets = (count_offsets(c.relative_grid, c.class_token), c.num_heads)
        yield make(name=f"{at}.relative_position_bias_table", shape=offsets, kind=Kind.OFFSETS, split="columns")
    yield from linear(make, f"{at}.qkv", D, 3 * D, "packed", bias=c.qkv_bias)
    yield from _inside_attention(c, make, at)
    if c.relative_hidden_dim is not None:
        yield from linear(make, f"{at}.rel_pos.mlp.fc1", 2, c.relative_hidden_dim)
        yield from linear(make, f"{at}.rel_pos.mlp.fc2", c.relative_hidden_dim, c.num_heads, "columns")
    if isinstance(c.rotary, MixedRotary):
        frequencies = (2, c.num_heads, c.head_dim // 2)
        yield make(name=f"{at}.rotary.freqs", shape=frequencies, kind=Kind.FREQUENCIES)
    if c.attn_norm:
        yield from _norm(c, make, f"{at}.norm", D)
    yield from linear(make, f"{at}.proj", D, D, "rows", bias=c.proj_bias)


def _inside_attention(c: ViTConfig, make: Make, at: str) -> Iterator[Parameter]:
    if c.qk_norm:
        yield from _norm(c, make, f"{at}.q_norm", c.qk_dim)
        yield from _norm(c, make, f"{at}.k_norm", c.qk_dim)
    if c.differential:
        for name in ("q1", "k1", "q2", "k2"):
            yield make(name=f"{at}.difference.lambda_{name}", shape=(c.qk_dim,), kind=Kind.SHARE)
        yield from norm(make, f"{at}.difference.sub_norm", c.head_dim, bias=False)


def _parallel_block(c: ViTConfig, make: Make, at: str) -> Iterator[Parameter]:
    D, M = c.embed_dim, c.hidden_dim
    if not c.qkv_bias:
        yield make(name=f"{at}.mlp_bias", shape=(M,), kind=Kind.BIAS, split="columns")
    yield from _norm(c, make, f"{at}.in_norm", D)
    yield from linear(make, f"{at}.in_proj", D, M + 3 * D, "packed", bias=c.qkv_bias)
    yield from _inside_attention(c, make, at)
    yield from linear(make, f"{at}.attn_out_proj", D, D, "rows", bias=c.proj_bias)
    yield from linear(make, f"{at}.mlp_out_proj", M, D, "rows", bias=c.proj_bias)
    yield from _layer_scale(c, make, f"{at}.ls")


def _mlp(c: ViTConfig, make: Make, at: str) -> Iterator[Parameter]:
    D, M, bias = c.embed_dim, c.hidden_dim, c.biased_mlp
    if c.mlp == "swiglu":
        yield from linear(make, f"{at}.fc1_g", D, M, "columns", bias=bias)
        yield from linear(make, f"{at}.fc1_x", D, M, "columns", bias=bias)
    elif c.mlp == "swiglu_packed":
        yield from linear(make, f"{at}.fc1", D, 2 * M, "packed", bias=bias)
    else:
        yield from linear(make, f"{at}.fc1", D, M, "columns", bias=bias)
    if c.mlp_norm:
        yield from _norm(c, make, f"{at}.norm", M)
    yield from linear(make, f"{at}.fc2", M, D, "rows", bias=bias)


def _pooling(c: ViTConfig, make: Make) -> Iterator[Parameter]:
    D = c.embed_dim
    if c.final_norm == "tokens":
        yield from _norm(c, make, "norm", D)
    if c.pool == "map":
        yield from _attention_pool(c, make, "attn_pool")
    if c.final_norm == "pooled":
        yield from _norm(c, make, "fc_norm", D)
    if c.pre_logits_dim is not None:
        yield from linear(make, "pre_logits.fc", c.pooled_dim, c.pre_logits_dim)


def _attention_pool(c: ViTConfig, make: Make, at: str) -> Iterator[Parameter]:
    D = c.embed_dim
    yield make(name=f"{at}.latent", shape=(1, 1, D), kind=Kind.TOKEN)
    yield from linear(make, f"{at}.q", D, D, "columns")
    yield from linear(make, f"{at}.kv", D, 2 * D, "packed")
    yield from linear(make, f"{at}.proj", D, D, "rows")
    yield from _norm(c, make, f"{at}.norm", D)
    yield from linear(make, f"{at}.mlp.fc1", D, c.pool_hidden_dim, "columns")
    yield from linear(make, f"{at}.mlp.fc2", c.pool_hidden_dim, D, "rows")


def _classifier(c: ViTConfig, make: Make) -> Iterator[Parameter]:
    features = c.pooled_dim if c.pre_logits_dim is None else c.pre_logits_dim
    if c.num_classes:
        yield from linear(make, "head", features, c.num_classes)
        if c.distilled:
            yield from linear(make, "head_dist", features, c.num_classes)


def _norm(c: ViTConfig, make: Make, at: str, width: int) -> Iterator[Parameter]:
    return norm(make, at, width, bias=c.norm_bias)
