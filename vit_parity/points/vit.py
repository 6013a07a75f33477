"""The activations of a plain ViT.

``embed`` is what the first block reads, ``tokens`` the same before ``norm_pre``; ``blocks.i.mid`` the tokens between
attention and MLP; ``attn.q``, ``attn.k``, ``attn.v`` (B, h, N, d) what attention reads, after their norms;
``attn.softmax`` (B, h, N, N) its weights; ``attn.heads`` (B, N, D) the heads side by side; ``mlp.act`` (B, N, M) the
output of the activation, multiplied by the value in a SwiGLU; ``pooled`` what the head's norm or layers read;
``logits`` the model's output, called ``features`` if the model has no classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_parity.points.common import Point
from vit_spec import ViTConfig


def points(config: ViTConfig) -> tuple[Point, ...]:
    """Every activation of the model, in the order of computation."""
    return tuple(_points(config))


def embed_point(config: ViTConfig) -> Point:
    """What the first block reads."""
    del config
    return Point("embed", "blocks.0", "input")


def part(x: Any, point: Point, config: ViTConfig) -> Any:
    """``patches``: the positions of a feature map, row by row. ``v``: the values as heads (B, h, N, d), out of a layer
    that computes several things at once."""
    if point.part == "patches":  # (B, D, H/P, W/P) in PyTorch, (B, H/P, W/P, D) in JAX
        channels_first = type(x).__module__.startswith("torch")
        x = x.permute(0, 2, 3, 1) if channels_first else x
        return x.reshape(x.shape[0], -1, config.embed_dim)  # (B, N, D)
    B, N, _ = x.shape
    heads = x[..., -config.embed_dim :].reshape(B, N, config.num_heads, config.head_dim)
    return heads.swapaxes(1, 2)  # (B, h, N, d)


def patch_maps(x: np.ndarray, config: ViTConfig) -> np.ndarray | None:
    """Tokens (B, N, D) -> those of patches, (B, rows, columns, D); ``None`` for other arrays."""
    if x.ndim != 3 or x.shape[1] != config.num_tokens:
        return None
    return x[:, config.num_prefix_tokens :].reshape(len(x), *config.grid_size, -1)


def covered_by_maps(images: np.ndarray, config: ViTConfig) -> np.ndarray:
    """Images (B, H, W, C) without the margin that fills no patch."""
    (height, width), (rows, columns) = config.image_size, config.margin
    return images[:, : height - rows, : width - columns]


def _points(c: ViTConfig) -> Iterator[Point]:
    yield Point("patch_embed.proj", "patch_embed.proj", part="patches")
    if c.patch_norm:
        yield Point("patch_embed.norm", "patch_embed.norm")
    if c.pre_norm:
        yield Point("tokens", "pos_drop")
    yield embed_point(c)
    for block in range(c.depth):
        at = f"blocks.{block}"
        yield from (_parallel_block if c.block == "parallel" else _block)(c, at)
        yield Point(at, at)
    if c.final_norm == "tokens":
        yield Point("norm", "norm")
    if c.pool == "map":
        for layer in ("q", "kv"):
            yield Point(f"attn_pool.{layer}", f"attn_pool.{layer}")
        yield Point("attn_pool.heads", "attn_pool.proj", "input")
        yield Point("attn_pool.proj", "attn_pool.proj")
        yield Point("attn_pool.norm", "attn_pool.norm")
        yield Point("attn_pool.mlp.fc1", "attn_pool.mlp.fc1")
        yield Point("attn_pool.mlp.act", "attn_pool.mlp.drop1", "input")
        yield Point("attn_pool.mlp.fc2", "attn_pool.mlp.fc2")
    yield Point("pooled", "fc_norm", "input")
    if c.final_norm == "pooled":
        yield Point("fc_norm", "fc_norm")
    if c.pre_logits_dim is not None:
        yield Point("pre_logits", "pre_logits")
    if c.distilled and c.num_classes:
        yield Point("head", "head")
        yield Point("head_dist", "head_dist")
    yield Point("logits" if c.num_classes else "features", "")


def _block(c: ViTConfig, at: str) -> Iterator[Point]:
    post = c.block == "post_norm"
    if not post:
        yield Point(f"{at}.norm1", f"{at}.norm1")
    yield Point(f"{at}.attn.qkv", f"{at}.attn.qkv")
    yield Point(f"{at}.attn.q", f"{at}.attn.q_norm")
    yield Point(f"{at}.attn.k", f"{at}.attn.k_norm")
    yield Point(f"{at}.attn.v", f"{at}.attn.qkv", part="v")
    yield Point(f"{at}.attn.softmax", f"{at}.attn.attn_drop", "input")
    yield Point(f"{at}.attn.heads", f"{at}.attn.norm", "input")
    if c.attn_norm:
        yield Point(f"{at}.attn.norm", f"{at}.attn.norm")
    yield Point(f"{at}.attn.proj", f"{at}.attn.proj")
    if post:
        yield Point(f"{at}.norm1", f"{at}.norm1")
    if c.layer_scale is not None:
        yield Point(f"{at}.ls1", f"{at}.ls1")
    yield Point(f"{at}.mid", f"{at}.mlp" if post else f"{at}.norm2", "input")
    if not post:
        yield Point(f"{at}.norm2", f"{at}.norm2")
    yield from _mlp(c, f"{at}.mlp")
    if post:
        yield Point(f"{at}.norm2", f"{at}.norm2")
    if c.layer_scale is not None:
        yield Point(f"{at}.ls2", f"{at}.ls2")


def _mlp(c: ViTConfig, at: str) -> Iterator[Point]:
    for layer in ("fc1_g", "fc1_x") if c.mlp == "swiglu" else ("fc1",):
        yield Point(f"{at}.{layer}", f"{at}.{layer}")
    yield Point(f"{at}.act", f"{at}.drop1", "input")
    if c.mlp_norm:
        yield Point(f"{at}.norm", f"{at}.norm")
    yield Point(f"{at}.fc2", f"{at}.fc2")


def _parallel_block(c: ViTConfig, at: str) -> Iterator[Point]:
    yield Point(f"{at}.in_norm", f"{at}.in_norm")
    yield Point(f"{at}.in_proj", f"{at}.in_proj")
    yield Point(f"{at}.attn.q", f"{at}.q_norm")
    yield Point(f"{at}.attn.k", f"{at}.k_norm")
    yield Point(f"{at}.attn.v", f"{at}.in_proj", part="v")
    yield Point(f"{at}.attn.softmax", f"{at}.attn_drop", "input")
    yield Point(f"{at}.attn.heads", f"{at}.attn_out_proj", "input")
    yield Point(f"{at}.attn_out_proj", f"{at}.attn_out_proj")
    yield Point(f"{at}.mlp.act", f"{at}.mlp_drop", "input")
    yield Point(f"{at}.mlp_out_proj", f"{at}.mlp_out_proj")
    if c.layer_scale is not None:
        yield Point(f"{at}.ls", f"{at}.ls")
