"""The forward pass of a Swin Transformer.

Deviations that :class:`vit_parity.replay.ReplayedModel` may name: ``other way``, ``unshifted``, ``even blocks``,
``shift kept`` (the cyclic shift); ``unmasked``; ``transposed``, ``columns`` (the index of offsets); ``row by row``
(merging); ``unclamped``, ``no sigmoid``, ``sigmoid alone``, ``dot product``, ``lengths`` (version 2);
``norms moved``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vit_parity.pieces import by_rows
from vit_parity.points import answer_name
from vit_parity.points.swin import is_masked
from vit_parity.replay.common import Replay
from vit_parity.semantics.layers import ACTIVATIONS, softmax

MASKED, LARGEST = -100.0, math.log(100.0)
"""What is added between regions; the largest logit scale."""


def forward(r: Replay, stage: str, x: np.ndarray) -> np.ndarray:
    """One stage on the tokens before it: ``embed`` reads the images, ``head`` gives the model's output."""
    if stage == "embed":
        return _embed(r)
    return _head(r, x) if stage == "head" else _block(r, stage, x)


@dataclass(frozen=True)
class Cut:
    """How the map of one block is cut into windows: what stands along each axis once it is shifted and padded."""

    window: tuple[int, int]
    places: tuple[np.ndarray, np.ndarray]
    """Row, or column, of the map; one more than the last for padding."""
    regions: tuple[np.ndarray, np.ndarray]

    def windows(self, x: np.ndarray) -> np.ndarray:
        """(B, rows, columns, …) -> (B, windows, n, …)."""
        (height, width), (B, rows, columns) = self.window, x.shape[:3]
        y = x.reshape(B, rows // height, height, columns // width, width, *x.shape[3:]).swapaxes(2, 3)
        return y.reshape(B, -1, height * width, *x.shape[3:])

    def cut(self, x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Tokens of maps (B, N, D) -> (B windows, n, D)."""
        maps = np.pad(x.reshape(len(x), *size, -1), ((0, 0), (0, 1), (0, 1), (0, 0)))
        moved = maps[:, self.places[0][:, None], self.places[1]]
        windows = self.windows(moved)
        return windows.reshape(-1, *windows.shape[2:])

    def join(self, x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The inverse of :meth:`cut`."""
        (height, width), (rows, columns) = self.window, (len(places) for places in self.places)
        maps = x.reshape(-1, rows // height, columns // width, height, width, x.shape[-1]).swapaxes(2, 3)
        maps = maps.reshape(len(maps), rows, columns, -1)
        found = np.zeros((len(maps), size[0] + 1, size[1] + 1, x.shape[-1]))
        found[:, self.places[0][:, None], self.places[1]] = maps
        return found[:, : size[0], : size[1]].reshape(len(maps), size[0] * size[1], -1)

    def mask(self) -> np.ndarray:
        """(windows, 1, n, n): -100 between regions."""
        region = self.windows((3 * self.regions[0][:, None] + self.regions[1])[None])[0]  # (windows, n)
        return np.where(region[:, None, :, None] != region[:, None, None, :], MASKED, 0.0)


def cut_of(r: Replay, stage: int, index: int) -> Cut:
    """The windows of one block."""
    c, deviations = r.config, r.model.deviations
    size, window = c.map_sizes[stage], c.window_sizes[stage]
    shift = [side // 2 for side in window]
    if c.window_rule == "min" and min(size) <= window[0]:
        window, shift = (min(size),) * 2, [0, 0] if "shift kept" not in deviations else [min(size) // 2] * 2
    elif c.window_rule in ("axis", "pad"):
        own = tuple(min(a, b) for a, b in zip(size, window, strict=True)) if c.window_rule == "axis" else window
        kept = [a // 2 for a in own]
        whole = [a <= b for a, b in zip(size, window, strict=True)]
        shift = [k if not one or "shift kept" in deviations else 0 for k, one in zip(kept, whole, strict=True)]
        window = own
    shifted = index % 2 == (0 if "even blocks" in deviations else 1) and "unshifted" not in deviations
    axes = [_axis(*each, c.pad_order, "other way" in deviations) if shifted else _axis(each[0], each[1], 0, "", False)
            for each in zip(size, window, shift, strict=True)]  # fmt: skip
    return Cut(window, (axes[0][0], axes[1][0]), (axes[0][1], axes[1][1]))


def _axis(side: int, window: int, shift: int, order: str, other_way: bool) -> tuple[np.ndarray, np.ndarray]:
    length = -(-side // window) * window
    step = -shift if other_way else shift
    if order == "roll_pad":
        places = np.concatenate([np.roll(np.arange(side), -step), np.full(length - side, side)])
    else:
        places = np.roll(np.minimum(np.arange(length), side), -step)
    at = np.arange(length)
    return places, (at >= length - window).astype(int) + (at >= length - shift) if shift else at * 0


def _embed(r: Replay) -> np.ndarray:
    """Images -> (B, N, D)."""
    c, images = r.config, r.model.images.astype(np.float64)
    P, (rows, columns) = c.patch_size, c.map_sizes[0]
    below, right = (max(0, count * P - side) for count, side in zip((rows, columns), images.shape[1:3], strict=True))
    images = np.pad(images, ((0, 0), (0, below), (0, right), (0, 0)))[:, : rows * P, : columns * P]
    B, H, W, C = images.shape
    cut = images.reshape(B, H // P, P, W // P, P, C).transpose(0, 1, 3, 5, 2, 4).reshape(B, -1, C * P * P)
    kernel = r.params["patch_embed.proj.weight"].reshape(c.embed_dim, -1)  # (D, C P P)
    x = r.note("patch_embed.proj", r.model.linear(cut, kernel, r.params.get("patch_embed.proj.bias", 0.0)))
    if c.patch_norm:
        x = r.note("patch_embed.norm", _norm(r, "patch_embed.norm", x, c.patch_norm_eps))
    return r.note("embed", x + r.params.get("absolute_pos_embed", 0.0))


def _norm(r: Replay, at: str, x: np.ndarray, eps: float) -> np.ndarray:
    """(..., D) -> (..., D)."""
    if r.model.skips(at):
        return x
    x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * r.params[f"{at}.weight"]
    return y + r.params.get(f"{at}.bias", 0.0)


def _block(r: Replay, at: str, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, N, D)."""
    c = r.config
    stage, index = (int(part) for part in at.split(".")[1::2])
    if stage and not index:
        x = _merge(r, stage, at, x)
    post = (c.version == 2) != ("norms moved" in r.model.deviations)

    def normed(name: str, x: np.ndarray) -> np.ndarray:
        return r.note(f"{at}.{name}", _norm(r, f"{at}.{name}", x, c.norm_eps))

    y = _attention(r, at, stage, index, x if post else normed("norm1", x))
    x = r.note(f"{at}.mid", x + (normed("norm1", y) if post else y))
    y = x if post else normed("norm2", x)
    y = r.note(f"{at}.mlp.fc1", r.linear(f"{at}.mlp.fc1", y))
    y = r.note(f"{at}.mlp.act", by_rows(ACTIVATIONS[c.activation], y))
    y = r.note(f"{at}.mlp.fc2", r.linear(f"{at}.mlp.fc2", y))
    return r.note(at, x + (normed("norm2", y) if post else y))


def _merge(r: Replay, stage: int, block: str, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, N / 4, 2 D)."""
    c, at, (rows, columns) = r.config, f"layers.{stage}.downsample", r.config.map_sizes[stage - 1]
    maps = np.pad(x.reshape(len(x), rows, columns, -1), ((0, 0), (0, rows % 2), (0, columns % 2), (0, 0)))
    order = [(0, 0), (0, 1), (1, 0), (1, 1)] if "row by row" in r.model.deviations else [(0, 0), (1, 0), (0, 1), (1, 1)]
    y = np.concatenate([maps[:, row::2, column::2] for row, column in order], axis=-1)
    y = y.reshape(len(x), -1, y.shape[-1])

    def normed(x: np.ndarray) -> np.ndarray:
        return r.note(f"{block}.merge.norm", _norm(r, f"{at}.norm", x, c.patch_norm_eps))

    y = normed(y) if c.version == 1 else y
    y = r.note(f"{block}.merge.reduction", r.linear(f"{at}.reduction", y))
    return y if c.version == 1 else normed(y)


def _attention(r: Replay, at: str, stage: int, index: int, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, N, D)."""
    c, size, cut = r.config, r.config.map_sizes[stage], cut_of(r, stage, index)
    h, deviations = c.num_heads[stage], r.model.deviations
    windows = r.note(f"{at}.attn.windows", cut.cut(x, size))
    (W, n, D) = windows.shape
    qkv = r.note(f"{at}.attn.qkv", r.linear(f"{at}.attn.qkv", windows))
    if r.model.heads_first:
        parts = qkv.reshape(W, n, h, 3, -1).transpose(3, 0, 2, 1, 4)
    else:
        parts = qkv.reshape(W, n, 3, h, -1).transpose(2, 0, 3, 1, 4)  # 3 of (W, h, n, d)
    q, k, v = (parts[place] for place in r.model.qkv_places)
    if f"{at}.attn.q_bias" in r.params:
        q = q + r.params[f"{at}.attn.q_bias"].reshape(h, 1, -1)
    if f"{at}.attn.v_bias" in r.params:
        v = v + r.params[f"{at}.attn.v_bias"].reshape(h, 1, -1)
    scale: np.ndarray | float = (D // h) ** -0.5
    if c.version == 2 and "dot product" not in deviations:
        if "lengths" not in deviations:
            q, k = (part / np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), 1e-12) for part in (q, k))
        own = r.params[f"{at}.attn.logit_scale"]
        scale = np.exp(own if "unclamped" in deviations else np.minimum(own, LARGEST))
    logits = r.model.attention_product(q * scale, k.swapaxes(-2, -1))  # (W, h, n, n)
    logits = r.note(f"{at}.attn.scores", logits)
    logits = r.note(f"{at}.attn.biased", logits + _bias(r, at, stage, cut))
    if "unmasked" not in deviations:
        mask = cut.mask()
        logits = (logits.reshape(-1, len(mask), *logits.shape[1:]) + mask).reshape(logits.shape)
    if is_masked(c, stage, index):
        logits = r.note(f"{at}.attn.masked", logits)
    weights = r.note(f"{at}.attn.softmax", by_rows(softmax, logits))
    heads = r.model.attention_product(weights, v).swapaxes(1, 2).reshape(W, n, -1)
    heads = r.note(f"{at}.attn.heads", heads)
    return cut.join(r.note(f"{at}.attn.proj", r.linear(f"{at}.attn.proj", heads)), size)


def _bias(r: Replay, at: str, stage: int, cut: Cut) -> np.ndarray:
    """(h, n, n): the bias of each query and key."""
    (height, width), deviations = cut.window, r.model.deviations
    y, x = (places.ravel() for places in np.mgrid[:height, :width])
    down, right = y[:, None] - y, x[:, None] - x
    if "transposed" in deviations:
        down, right = -down, -right
    if "columns" in deviations:
        rows = (right + width - 1) * (2 * height - 1) + down + height - 1
    else:
        rows = (down + height - 1) * (2 * width - 1) + right + width - 1
    return _table(r, at, stage, cut)[rows].transpose(2, 0, 1)


def _table(r: Replay, at: str, stage: int, cut: Cut) -> np.ndarray:
    """(offsets, h): the bias of each offset."""
    if r.config.version == 1:
        return r.params[f"{at}.attn.relative_position_bias_table"]
    axes = []
    for side, pretrained in zip(cut.window, r.config.pretrained_window_sizes[stage], strict=True):
        u = 8 * np.arange(1 - side, side) / max((pretrained or side) - 1, 1)
        axes.append(np.sign(u) * np.log2(1 + np.abs(u)) / 3)
    coordinates = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    hidden = np.maximum(r.linear(f"{at}.attn.cpb_mlp.0", coordinates), 0)
    table = r.linear(f"{at}.attn.cpb_mlp.2", hidden)
    if "no sigmoid" in r.model.deviations:
        return table
    return 1 / (1 + np.exp(-table)) * (1 if "sigmoid alone" in r.model.deviations else 16)


def _head(r: Replay, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, K)."""
    c = r.config
    x = r.note("norm", _norm(r, "norm", x, c.norm_eps)) if c.final_norm else x
    x = r.note("pooled", x.mean(axis=1))
    x = r.linear("head.fc", x) if "head.fc.weight" in r.params else x
    return r.note(answer_name(c), x)
