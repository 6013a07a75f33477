"""The activations of a plain ViT.

``embed`` is what the first block reads, ``tokens`` the same before ``norm_pre``; ``blocks.i.mid`` the tokens between
attention and MLP; ``attn.q``, ``attn.k``, ``attn.v`` (B, h, N, d) queries, keys and values after their norms, before
rotary positions turn them and before ``v_bias``; ``attn.softmax`` (B, h, N, N) the attention weights; ``attn.heads``
(B, N, D) the heads side by side; ``mlp.act`` (B, N, M) the output of the activation, multiplied by the value in a
SwiGLU; in branches they follow ``attns.0.`` or ``ffns.0.``; in differential attention ``attn.q`` and ``attn.k`` are
(B, h, N, 2, d / 2), ``attn.softmax`` (B, 2 h, N, N); ``pooled`` what the head's norm or layers read;
``logits`` the model's output, called ``features`` if the model has no classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from vit_parity.points.common import Point
from vit_spec import ViTConfig, parameters


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
    if c.pixel_norm:
        yield Point("patch_embed.pixel_norm", "patch_embed.pixel_norm")
    yield Point("patch_embed.proj", "patch_embed.proj", part="patches")
    if c.patch_norm:
        yield Point("patch_embed.norm", "patch_embed.norm")
    if c.pre_norm:
        yield Point("tokens", "pos_drop")
    yield embed_point(c)
    for block in range(c.depth):
        at = f"blocks.{block}"
        yield from _block(c, at)
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


_HIDDEN = ("mlp.act", "mlp.drop1", "input")
_BEHIND: dict[str, tuple[tuple[str, str, Literal["input", "output"]], ...]] = {
    "attn.qkv": (
        ("attn.q", "attn.q_norm", "output"),
        ("attn.k", "attn.k_norm", "output"),
        ("attn.v", "attn.qkv", "output"),
        ("attn.softmax", "attn.attn_drop", "input"),
        ("attn.heads", "attn.norm", "input"),
    ),
    "mlp.fc1": (_HIDDEN,),
    "mlp.fc1_x": (_HIDDEN,),
    "in_proj": (
        ("attn.q", "q_norm", "output"),
        ("attn.k", "k_norm", "output"),
        ("attn.v", "in_proj", "output"),
        ("attn.softmax", "attn_drop", "input"),
        ("attn.heads", "attn_out_proj", "input"),
    ),
    "attn_out_proj": (("mlp.act", "mlp_drop", "input"),),
}
"""Layer → the activations that are computed from its output: name, module, side."""


def _block(c: ViTConfig, at: str) -> Iterator[Point]:
    """The outputs of the layers that have parameters, in the order of the list of parameters, and what lies between.

    An option that adds a layer needs no line here.
    """
    names = dict.fromkeys(it.name.removeprefix(f"{at}.").rpartition(".")[0] for it in parameters(c) if it.block == at)
    layers = [name for name in names if name and not name.endswith(_WITHOUT_POINT)]
    for norm, parts in _NORMS_AFTER.get(c.block, {}).items():
        layers = _moved(layers, norm, after=parts)
    reads_sum = _READS_SUM.get(c.block, "norm2")
    second = next((layer for layer in layers if layer.startswith(reads_sum)), None)
    for layer in layers:
        if layer == second:
            yield Point(f"{at}.mid", f"{at}.{reads_sum}", "input")
        yield Point(f"{at}.{layer}", f"{at}.{layer}")
        branch = _BRANCH.match(layer)
        place = f"{at}.{branch[0]}" if branch else f"{at}."
        for name, module, side in _BEHIND.get(layer.removeprefix(branch[0]) if branch else layer, ()):
            yield Point(f"{place}{name}", f"{place}{module}", side, "v" if name == "attn.v" else "")


_BRANCH = re.compile(r"(?:attns|ffns)\.\d+\.")
_WITHOUT_POINT = (
    "q_norm", "k_norm", "attn", "rotary", "rel_pos.mlp.fc1", "rel_pos.mlp.fc2", "difference", "difference.sub_norm",
)  # fmt: skip
"""Modules that are no layers of their own, that run twice, or that read no image."""
_NORMS_AFTER = {
    "post_norm": {"norm1": ("attn.",), "norm2": ("mlp.",)},
    "original": {"norm1": ("attn.", "ls1"), "norm2": ("mlp.", "ls2")},
}
"""Block → norm → beginnings of the names of the layers that it follows, where a block's norms do not come first."""
_READS_SUM = {"post_norm": "mlp", "original": "norm1", "branched": "ffns.0.norm"}
"""Block → the module that reads the sum of the attention and its input, where that is not ``norm2``."""


def _moved(layers: list[str], layer: str, *, after: tuple[str, ...]) -> list[str]:
    """The layers with one of them moved to just after the last whose name begins with ``after``."""
    rest = [other for other in layers if other != layer]
    place = 1 + max(at for at, other in enumerate(rest) if other.startswith(after))
    return [*rest[:place], layer, *rest[place:]]
