"""The activations of a Swin Transformer.

``embed`` is what the first block reads. What merging computes is named in the block that it leads to:
``layers.1.blocks.0.merge.reduction``. ``attn.windows`` (B windows, n, D) are the tokens of each window, shifted and
padded; ``attn.scores`` (B windows, h, n, n) the products of queries and keys, scaled; ``attn.biased`` those with the
bias by relative position; ``attn.masked``, where windows are shifted, those with the mask too; ``attn.softmax`` the
attention weights; ``attn.heads`` (B windows, n, D) the heads side by
side; ``mid`` the tokens between attention and MLP; ``mlp.act`` (B, N, M) the output of the activation; ``pooled`` the
mean of all tokens; ``logits`` the model's output, called ``features`` if the model has no classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_parity.points.common import Point
from vit_spec import SwinConfig
from vit_spec.swin.windows import windowings


def points(config: SwinConfig) -> tuple[Point, ...]:
    """Every activation of the model, in the order of computation."""
    return tuple(_points(config))


def embed_point(config: SwinConfig) -> Point:
    """What the first block reads."""
    del config
    return Point("embed", "layers.0.blocks.0", "input")


def part(x: Any, point: Point, config: SwinConfig, beside: Any = None) -> Any:
    """``patches``: the positions of a feature map, row by row. ``scores``, ``biased`` and ``masked``: of what attention
    is given, with the bias by relative position beside it."""
    if point.part != "patches":
        return _scores(x, point.part, beside)
    channels_first = type(x).__module__.startswith("torch")
    x = x.permute(0, 2, 3, 1) if channels_first else x  # (B, rows, columns, D)
    return x.reshape(x.shape[0], -1, config.embed_dim)


def is_masked(config: SwinConfig, stage: int, index: int) -> bool:
    """Whether a block's windows are shifted, so that a mask belongs to its scores."""
    return index % 2 == 1 and any(windowings(config)[stage].shift)


def _scores(given: tuple[Any, ...], part: str, relative: Any) -> Any:
    """(B windows, h, n, n), as :func:`vit_torch.layers.attention.attend` computes them."""
    q, k, _, scale, _, bias = given
    scores = (q * scale) @ k.swapaxes(-2, -1)
    if part == "scores":
        return scores
    added = relative if part == "biased" else bias  # (1 or windows, h, n, n)
    return (scores.reshape(-1, len(added), *scores.shape[1:]) + added).reshape(scores.shape)


def patch_maps(x: np.ndarray, config: SwinConfig) -> np.ndarray | None:
    """Tokens (B, N, D) of any stage -> (B, rows, columns, D); ``None`` for other arrays."""
    for (rows, columns), width in zip(config.map_sizes, config.widths, strict=True):
        if x.ndim == 3 and x.shape[1] == rows * columns and x.shape[2] in (width, 1):
            return x.reshape(len(x), rows, columns, -1)
    return None


def covered_by_maps(images: np.ndarray, config: SwinConfig) -> np.ndarray:
    """Images (B, H, W, C): patches fill them."""
    del config
    return images


def _points(c: SwinConfig) -> Iterator[Point]:
    yield Point("patch_embed.proj", "patch_embed.proj", part="patches")
    if c.patch_norm:
        yield Point("patch_embed.norm", "patch_embed.norm")
    yield embed_point(c)
    for stage, depth in enumerate(c.depths):
        if stage:
            layers = ("norm", "reduction") if c.version == 1 else ("reduction", "norm")
            for layer in layers:
                yield Point(f"layers.{stage}.blocks.0.merge.{layer}", f"layers.{stage}.downsample.{layer}")
        for index in range(depth):
            at = f"layers.{stage}.blocks.{index}"
            yield from _block(c, at, masked=is_masked(c, stage, index))
            yield Point(at, at)
    if c.final_norm:
        yield Point("norm", "norm")
    yield Point("pooled", "head", "input")
    yield Point("logits" if c.num_classes else "features", "")


def _block(c: SwinConfig, at: str, *, masked: bool) -> Iterator[Point]:
    if c.version == 1:
        yield Point(f"{at}.norm1", f"{at}.norm1")
    yield Point(f"{at}.attn.windows", f"{at}.attn.qkv", "input")
    yield Point(f"{at}.attn.qkv", f"{at}.attn.qkv")
    attend = f"{at}.attn.attend"
    yield Point(f"{at}.attn.scores", attend, "input", "scores")
    yield Point(f"{at}.attn.biased", attend, "input", "biased", beside=f"{at}.attn.relative_bias")
    if masked:
        yield Point(f"{at}.attn.masked", attend, "input", "masked")
    yield Point(f"{at}.attn.softmax", f"{at}.attn.attn_drop", "input")
    yield Point(f"{at}.attn.heads", f"{at}.attn.proj", "input")
    yield Point(f"{at}.attn.proj", f"{at}.attn.proj")
    if c.version == 2:
        yield Point(f"{at}.norm1", f"{at}.norm1")
        yield Point(f"{at}.mid", f"{at}.mlp", "input")
    else:
        yield Point(f"{at}.mid", f"{at}.norm2", "input")
        yield Point(f"{at}.norm2", f"{at}.norm2")
    yield Point(f"{at}.mlp.fc1", f"{at}.mlp.fc1")
    yield Point(f"{at}.mlp.act", f"{at}.mlp.drop1", "input")
    yield Point(f"{at}.mlp.fc2", f"{at}.mlp.fc2")
    if c.version == 2:
        yield Point(f"{at}.norm2", f"{at}.norm2")
