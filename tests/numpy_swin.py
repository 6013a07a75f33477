"""A Swin Transformer in plain numpy float64, written from the papers: the oracle for both frameworks.

It shares nothing with the packages but the config and the canonical names. Windows are lists of places on the map,
filled one by one; the position of every pair of tokens is computed for that pair. Slow, and short enough to be checked
by reading.
"""

from __future__ import annotations

import math

import numpy as np

from tests.numpy_reference import ACTIVATIONS, Params, linear, softmax
from vit_spec import SwinConfig


def forward(c: SwinConfig, p: Params, images: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> logits (B, K), or features (B, D)."""
    return np.stack([head(p, maps(c, p, image)[-1].mean((0, 1))) for image in images])


def head(p: Params, features: np.ndarray) -> np.ndarray:
    return linear(p, "head.fc", features) if "head.fc.weight" in p else features


def maps(c: SwinConfig, p: Params, image: np.ndarray, normed: bool = True) -> list[np.ndarray]:
    """(C, H, W) -> the output of each stage, (rows, columns, D), the last one normalised."""
    x, found = embed(c, p, image), []
    for stage, depth in enumerate(c.depths):
        if stage:
            x = merge(c, p, f"layers.{stage}.downsample", x)
        for index in range(depth):
            x = block(c, p, stage, index, x)
        found.append(x)
    names = [*(f"stage_norms.{stage}" for stage in range(c.num_stages - 1)), "norm"]
    return [norm(p, name, x, c.norm_eps) if normed else x for name, x in zip(names, found, strict=True)]


def norm(p: Params, at: str, x: np.ndarray, eps: float) -> np.ndarray:
    """The identity where the model has no such norm."""
    if f"{at}.weight" not in p:
        return x
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p[f"{at}.weight"] + p[f"{at}.bias"]


def embed(c: SwinConfig, p: Params, image: np.ndarray) -> np.ndarray:
    P, kernel = c.patch_size, p["patch_embed.proj.weight"]
    rows, columns = c.image_size[0] // P, c.image_size[1] // P
    if c.margin_rule == "pad":
        rows, columns = math.ceil(c.image_size[0] / P), math.ceil(c.image_size[1] / P)
        image = np.pad(image, ((0, 0), (0, rows * P - c.image_size[0]), (0, columns * P - c.image_size[1])))
    x = np.zeros((rows, columns, c.embed_dim))
    for row in range(rows):
        for column in range(columns):
            patch = image[:, row * P : row * P + P, column * P : column * P + P]
            x[row, column] = [np.sum(patch * k) for k in kernel]
    x = norm(p, "patch_embed.norm", x + p["patch_embed.proj.bias"], c.patch_norm_eps)
    return x + p["absolute_pos_embed"].reshape(x.shape) if "absolute_pos_embed" in p else x


def merge(c: SwinConfig, p: Params, at: str, x: np.ndarray) -> np.ndarray:
    rows, columns, D = x.shape
    y = np.zeros((-(-rows // 2), -(-columns // 2), 4 * D))
    for row in range(rows):
        for column in range(columns):
            part = row % 2 + 2 * (column % 2)  # 00, 10, 01, 11
            y[row // 2, column // 2, part * D : part * D + D] = x[row, column]
    if c.version == 1:
        return linear(p, f"{at}.reduction", norm(p, f"{at}.norm", y, c.patch_norm_eps))
    return norm(p, f"{at}.norm", linear(p, f"{at}.reduction", y), c.patch_norm_eps)


def block(c: SwinConfig, p: Params, stage: int, index: int, x: np.ndarray) -> np.ndarray:
    at = f"layers.{stage}.blocks.{index}"

    def mlp(x: np.ndarray) -> np.ndarray:
        return linear(p, f"{at}.mlp.fc2", ACTIVATIONS[c.activation](linear(p, f"{at}.mlp.fc1", x)))

    def normed(number: int, x: np.ndarray) -> np.ndarray:
        return norm(p, f"{at}.norm{number}", x, c.norm_eps)

    if c.version == 1:
        x = x + attention(c, p, stage, index, normed(1, x))
        return x + mlp(normed(2, x))
    x = x + normed(1, attention(c, p, stage, index, x))
    return x + normed(2, mlp(x))


def window_and_shift(c: SwinConfig, stage: int, size: tuple[int, int]) -> tuple[list[int], list[int]]:
    window = list(c.window_sizes[stage])
    shift = [side // 2 for side in window]
    if c.window_rule == "min" and min(size) <= window[0]:
        window, shift = [min(size)] * 2, [0, 0]
    if c.window_rule in ("axis", "pad"):
        for axis in (0, 1):
            if size[axis] <= window[axis]:
                shift[axis] = 0
                window[axis] = size[axis] if c.window_rule == "axis" else window[axis]
    return window, shift


def places(side: int, window: int, shift: int, order: str) -> tuple[list[int | None], list[int]]:
    """Along one axis of the shifted and padded map: which row of the map stands there, and its region."""
    padding = -side % window
    own: list[int | None] = list(range(side))
    if order == "roll_pad":
        own = own[shift:] + own[:shift] + [None] * padding
    else:
        own = own + [None] * padding
        own = own[shift:] + own[:shift]
    length = side + padding
    regions = [0 if at < length - window else 1 if at < length - shift else 2 for at in range(length)]
    return own, regions if shift else [0] * length


def attention(c: SwinConfig, p: Params, stage: int, index: int, x: np.ndarray) -> np.ndarray:
    at, D = f"layers.{stage}.blocks.{index}.attn", x.shape[-1]
    size = (x.shape[0], x.shape[1])
    window, shift = window_and_shift(c, stage, size)
    if index % 2 == 0:
        shift = [0, 0]
    (rows, down), (columns, across) = (places(size[a], window[a], shift[a], c.pad_order) for a in (0, 1))
    bias = {offset: relative(c, p, at, stage, window, offset) for offset in offsets(window)}
    inside = [(i, j) for i in range(window[0]) for j in range(window[1])]
    pairs = np.array([[bias[q[0] - k[0], q[1] - k[1]] for k in inside] for q in inside]).transpose(2, 0, 1)
    y = np.zeros_like(x)
    for top in range(0, len(rows), window[0]):
        for left in range(0, len(columns), window[1]):
            tokens, regions = np.zeros((len(inside), D)), np.zeros(len(inside))
            for n, (i, j) in enumerate(inside):
                row, column = rows[top + i], columns[left + j]
                regions[n] = 10 * down[top + i] + across[left + j]
                if row is not None and column is not None:
                    tokens[n] = x[row, column]
            logits = pairs - 100 * (regions[:, None] != regions)
            result = linear(p, f"{at}.proj", heads(c, p, at, tokens, logits))
            for n, (i, j) in enumerate(inside):
                row, column = rows[top + i], columns[left + j]
                if row is not None and column is not None:
                    y[row, column] = result[n]
    return y


def heads(c: SwinConfig, p: Params, at: str, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    q, k, v = np.split(linear(p, f"{at}.qkv", x), 3, axis=-1)
    if f"{at}.q_bias" in p:
        q, v = q + p[f"{at}.q_bias"], v + p[f"{at}.v_bias"]
    results = []
    for one, (qh, kh, vh) in enumerate(zip(*(np.split(each, len(bias), axis=-1) for each in (q, k, v)), strict=True)):
        if c.version == 1:
            logits = qh @ kh.T / math.sqrt(qh.shape[-1])
        else:
            lengths = [np.maximum(np.linalg.norm(each, axis=-1, keepdims=True), 1e-12) for each in (qh, kh)]
            scale = math.exp(min(p[f"{at}.logit_scale"][one, 0, 0], math.log(100)))
            logits = (qh / lengths[0]) @ (kh / lengths[1]).T * scale
        results.append(softmax(logits + bias[one]) @ vh)
    return np.concatenate(results, -1)


def offsets(window: list[int]) -> list[tuple[int, int]]:
    return [(dy, dx) for dy in range(1 - window[0], window[0]) for dx in range(1 - window[1], window[1])]


def relative(c: SwinConfig, p: Params, at: str, stage: int, window: list[int], offset: tuple[int, int]) -> np.ndarray:
    """(h,): the bias of a query that lies ``offset`` below and to the right of its key."""
    if c.version == 1:
        return p[f"{at}.relative_position_bias_table"][offsets(window).index(offset)]
    coordinates = []
    for own, pretrained, distance in zip(window, c.pretrained_window_sizes[stage], offset, strict=True):
        largest = (pretrained or own) - 1
        u = 8 * distance / largest if distance else 0.0
        coordinates.append(math.copysign(math.log2(1 + abs(u)) / math.log2(8), u))
    hidden = np.maximum(linear(p, f"{at}.cpb_mlp.0", np.array(coordinates)), 0)
    return 16 / (1 + np.exp(-linear(p, f"{at}.cpb_mlp.2", hidden)))
