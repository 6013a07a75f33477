"""A Vision Transformer in plain numpy float64, written from the papers: the oracle for both frameworks.

It shares nothing with the packages but the config and the canonical names: patches are cut out one by one, heads are
looped over, tokens are assembled image by image. Slow, and short enough to be checked by reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vit_spec import ViTConfig
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary

Params = dict[str, np.ndarray]

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0))),
    "gelu_tanh": lambda x: 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1.0 + np.exp(-1.702 * x)),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0.0),
}


def linear(p: Params, at: str, x: np.ndarray) -> np.ndarray:
    y = np.einsum("...i,oi->...o", x, p[f"{at}.weight"])
    return y + p[f"{at}.bias"] if f"{at}.bias" in p else y


def norm(c: ViTConfig, p: Params, at: str, x: np.ndarray) -> np.ndarray:
    """The identity where the model has no such norm."""
    if f"{at}.weight" not in p:
        return x
    if c.norm == "layernorm":
        x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_eps) * p[f"{at}.weight"]
    return y + p[f"{at}.bias"] if f"{at}.bias" in p else y


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def patches(c: ViTConfig, p: Params, image: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (N, D)."""
    P, kernel = c.patch_size, p["patch_embed.proj.weight"]
    rows = []
    for top in range(0, c.image_size[0] - P + 1, P):
        for left in range(0, c.image_size[1] - P + 1, P):
            pixels = image[:, top : top + P, left : left + P].transpose(1, 2, 0).ravel()
            pixels = norm(c, p, "patch_embed.pixel_norm", pixels).reshape(P, P, -1).transpose(2, 0, 1)
            rows.append([np.sum(pixels * k) for k in kernel])
    y = np.array(rows) + p.get("patch_embed.proj.bias", 0.0)
    return norm(c, p, "patch_embed.norm", y)


def attention(c: ViTConfig, p: Params, at: str, x: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D)."""
    q, k, v = np.split(linear(p, f"{at}.qkv", x), 3, axis=-1)
    q, v = q + p.get(f"{at}.q_bias", 0.0), v + p.get(f"{at}.v_bias", 0.0)
    return linear(p, f"{at}.proj", norm(c, p, f"{at}.norm", heads(c, p, at, q, k, v)))


def heads(c: ViTConfig, p: Params, at: str, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(N, D) each -> (N, D)."""
    outputs = []
    if c.differential:
        return differential_heads(c, p, at, q, k, v)
    for head in range(c.num_heads):
        cut = slice(head * c.head_dim, (head + 1) * c.head_dim)
        queries, keys = norm(c, p, f"{at}.q_norm", q[:, cut]), norm(c, p, f"{at}.k_norm", k[:, cut])
        queries, keys = turned(c, p, at, head, queries), turned(c, p, at, head, keys)
        scale = 1.0 / math.sqrt(c.head_dim) if c.qk_scale is None else c.qk_scale
        logits = scale * np.einsum("nd,md->nm", queries, keys) + relative_bias(c, p, at, head)
        outputs.append(softmax(logits) @ v[:, cut])
    return np.concatenate(outputs, -1)


def differential_heads(c: ViTConfig, p: Params, at: str, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(N, D) each -> (N, D): Ye et al. 2024, equations 1 to 3; the block's number is in its name."""
    half, outputs = c.head_dim // 2, []
    begin = 0.8 - 0.6 * math.exp(-0.3 * int(at.split(".")[1]))
    factors = [math.exp(np.dot(*(p[f"{at}.difference.lambda_{part}{i}"] for part in "qk"))) for i in (1, 2)]
    scale = half**-0.5 if c.qk_scale is None else c.qk_scale
    for head in range(c.num_heads):
        start, values = head * c.head_dim, v[:, head * c.head_dim : (head + 1) * c.head_dim]
        maps = []
        for cut in (slice(start, start + half), slice(start + half, start + 2 * half)):
            queries, keys = norm(c, p, f"{at}.q_norm", q[:, cut]), norm(c, p, f"{at}.k_norm", k[:, cut])
            maps.append(softmax(scale * queries @ keys.T))
        y = (maps[0] - (factors[0] - factors[1] + begin) * maps[1]) @ values
        y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * p[f"{at}.difference.sub_norm.weight"]
        outputs.append((1 - begin) * y)
    return np.concatenate(outputs, -1)


def relative_bias(c: ViTConfig, p: Params, at: str, head: int) -> np.ndarray | float:
    """(N, N), from query to key: BEiT's rows by offset, and three for the class token; or a network's."""
    if c.relative_hidden_dim is not None:
        return network_bias(c, p, f"{at}.rel_pos.mlp", head)
    if not c.relative_bias:
        return 0.0
    table, (rows, columns) = p[f"{at}.relative_position_bias_table"][:, head], c.grid_size
    places: list[tuple[int, int] | None] = [(y, x) for y in range(rows) for x in range(columns)]
    places = [None, *places] if c.class_token else places

    def of(query: tuple[int, int] | None, key: tuple[int, int] | None) -> float:
        if query is None or key is None:
            return table[-1 if query is key else -3 if query is None else -2]
        y, x = query[0] - key[0] + rows - 1, query[1] - key[1] + columns - 1
        return table[y * (2 * columns - 1) + x]

    return np.array([[of(query, key) for key in places] for query in places])


def network_bias(c: ViTConfig, p: Params, at: str, head: int) -> np.ndarray:
    """(N, N), from query to key: an MLP with a ReLU reads sign(o) log(1 + |o|) of the offsets by row and by column."""
    bias = np.zeros((c.num_prefix_tokens + c.num_patches,) * 2)
    for query in range(c.num_patches):
        for key in range(c.num_patches):
            ways = np.subtract(divmod(query, c.grid_size[1]), divmod(key, c.grid_size[1]))
            spaced = np.array([math.copysign(math.log(1 + abs(way)), way) for way in ways])
            hidden = np.maximum(linear(p, f"{at}.fc1", spaced), 0.0)
            bias[c.num_prefix_tokens + query, c.num_prefix_tokens + key] = linear(p, f"{at}.fc2", hidden)[head]
    return bias


def turned(c: ViTConfig, p: Params, at: str, head: int, x: np.ndarray) -> np.ndarray:
    """(N, d) -> (N, d): each pair of channels of each patch turned by its angle."""
    if c.rotary is None:
        return x
    y, half = x.copy(), c.head_dim // 2
    for patch in range(c.num_patches):
        token, (row, column) = c.num_prefix_tokens + patch, divmod(patch, c.grid_size[1])
        for j, angle in enumerate(angles(c, p, at, head, row, column)):
            first, second = (j, j + half) if c.rotary.pairs == "halves" else (2 * j, 2 * j + 1)
            a, b = x[token, first], x[token, second]
            y[token, first] = a * math.cos(angle) - b * math.sin(angle)
            y[token, second] = a * math.sin(angle) + b * math.cos(angle)
    return y


def angles(c: ViTConfig, p: Params, at: str, head: int, row: int, column: int) -> list[float]:
    """The d / 2 angles of one patch, by the formulas of DINOv3, EVA-02 and RoPE-ViT."""
    r, quarter = c.rotary, c.head_dim // 4
    if isinstance(r, MixedRotary):
        across, down = p[f"{at}.rotary.freqs"][:, head]
        return [column * a + row * b for a, b in zip(across, down, strict=True)]
    if isinstance(r, DinoV3Rotary):
        periods = r.periods or [r.theta ** (4 * j / c.head_dim) for j in range(quarter)]
        places = [-1 + (2 * at + 1) / n for at, n in zip((row, column), c.grid_size, strict=True)]
        return [2 * math.pi * place / period for place in places for period in periods]
    assert isinstance(r, AxialRotary)
    sizes = r.reference_grid or c.grid_size
    places = [(at + r.offset) * s / n for at, s, n in zip((row, column), sizes, c.grid_size, strict=True)]
    return [place * r.theta ** (-4 * j / c.head_dim) for place in places[:: 1 if r.order == "hw" else -1]
            for j in range(quarter)]  # fmt: skip


def mlp(c: ViTConfig, p: Params, at: str, x: np.ndarray, kind: str) -> np.ndarray:
    act = ACTIVATIONS[c.activation]
    if kind == "plain":
        hidden = act(linear(p, f"{at}.fc1", x))
    elif kind == "swiglu":
        hidden = act(linear(p, f"{at}.fc1_g", x)) * linear(p, f"{at}.fc1_x", x)
    else:
        both = linear(p, f"{at}.fc1", x)
        hidden = act(both[..., : c.hidden_dim]) * both[..., c.hidden_dim :]
    return linear(p, f"{at}.fc2", norm(c, p, f"{at}.norm", hidden))


def parallel_block(c: ViTConfig, p: Params, at: str, x: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D): Dehghani et al. 2023, section 2, y = LN(x), x + MLP(y) + Attention(y)."""
    D, M = c.embed_dim, c.hidden_dim
    y = linear(p, f"{at}.in_proj", norm(c, p, f"{at}.in_norm", x))
    hidden = ACTIVATIONS[c.activation](y[:, :M] + p.get(f"{at}.mlp_bias", 0.0))
    rows = [y[:, M + part * D : M + (part + 1) * D] for part in range(3)]
    both = linear(p, f"{at}.attn_out_proj", heads(c, p, at, *rows)) + linear(p, f"{at}.mlp_out_proj", hidden)
    return x + p.get(f"{at}.ls.gamma", 1.0) * both


def branched_block(c: ViTConfig, p: Params, at: str, x: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D): Touvron et al. 2022, "Three things", x + sum of attentions, then + sum of MLPs."""
    attns, ffns = ([f"{at}.{group}.{branch}" for branch in range(c.branches)] for group in ("attns", "ffns"))
    x = x + sum(p.get(f"{b}.ls.gamma", 1.0) * attention(c, p, f"{b}.attn", norm(c, p, f"{b}.norm", x)) for b in attns)
    return x + sum(p.get(f"{b}.ls.gamma", 1.0) * mlp(c, p, f"{b}.mlp", norm(c, p, f"{b}.norm", x), c.mlp) for b in ffns)


def block(c: ViTConfig, p: Params, at: str, x: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D)."""
    if c.block == "parallel":
        return parallel_block(c, p, at, x)
    if c.block == "branched":
        return branched_block(c, p, at, x)
    branches = (lambda x: attention(c, p, f"{at}.attn", x), lambda x: mlp(c, p, f"{at}.mlp", x, c.mlp))
    for number, branch in enumerate(branches, 1):
        at_norm = f"{at}.norm{number}"
        gamma = p.get(f"{at}.ls{number}.gamma", 1.0)
        if c.block == "original":  # Vaswani et al. 2017, section 3.1: LayerNorm(x + Sublayer(x))
            x = norm(c, p, at_norm, x + gamma * branch(x))
            continue
        y = norm(c, p, at_norm, branch(x)) if c.block == "post_norm" else branch(norm(c, p, at_norm, x))
        x = x + gamma * y
    return x


def attention_pool(c: ViTConfig, p: Params, x: np.ndarray) -> np.ndarray:
    """(N, D) -> (D,)."""
    q = linear(p, "attn_pool.q", p["attn_pool.latent"][0, 0])
    k, v = np.split(linear(p, "attn_pool.kv", x), 2, axis=-1)
    heads, count = [], c.num_heads if c.map_heads is None else c.map_heads
    for cut in (slice(head * len(q) // count, (head + 1) * len(q) // count) for head in range(count)):
        heads.append(softmax(k[:, cut] @ q[cut] / math.sqrt(len(q) // count)) @ v[:, cut])
    y = linear(p, "attn_pool.proj", np.concatenate(heads))
    return y + mlp(c, p, "attn_pool.mlp", norm(c, p, "attn_pool.norm", y), "plain")


def embed(c: ViTConfig, p: Params, image: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (N, D)."""
    special = [p[name][0, 0] for name in ("cls_token", "dist_token") if name in p]
    registers = list(p["reg_token"][0]) if "reg_token" in p else []
    body = list(patches(c, p, image))
    rows = [] if c.pos_embed == "none" else list(p["pos_embed"][0])
    if c.pos_embed == "patch":
        tokens = special + registers + _added(body, rows)
    elif c.pos_embed == "prefix":
        placed = _added(special + body, rows)
        tokens = placed[: len(special)] + registers + placed[len(special) :]
    elif c.pos_embed == "all":
        tokens = _added(special + registers + body, rows)
    else:
        tokens = special + registers + body
    return norm(c, p, "norm_pre", np.array(tokens))


def features(c: ViTConfig, p: Params, image: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (N, D)."""
    x = embed(c, p, image)
    for i in range(c.depth):
        x = block(c, p, f"blocks.{i}", x)
    return norm(c, p, "norm", x) if c.final_norm == "tokens" else x


def forward(c: ViTConfig, p: Params, images: np.ndarray) -> np.ndarray:
    """What a model in evaluation mode gives: (B, C, H, W) -> (B, K)."""
    return np.stack([_head(c, p, features(c, p, image)) for image in images])


def _head(c: ViTConfig, p: Params, x: np.ndarray) -> np.ndarray:
    first = 0 if c.pool_prefix else int(c.class_token) + int(c.distilled) + c.register_tokens
    if c.distilled:
        both = norm(c, p, "fc_norm", x[:2])
        if not c.num_classes:
            return both.mean(0)
        return 0.5 * (linear(p, "head", both[0]) + linear(p, "head_dist", both[1]))
    pooled = {
        "token": lambda: x[0],
        "avg": lambda: x[first:].mean(0),
        "token_avg": lambda: np.concatenate([x[0], x[first:].mean(0)]),
        "map": lambda: attention_pool(c, p, x[first:]),
    }[c.pool]()
    y = norm(c, p, "fc_norm", pooled)
    if c.representation_size is not None:
        y = np.tanh(linear(p, "pre_logits.fc", y))
    return linear(p, "head", y) if c.num_classes else y


def _added(tokens: list[np.ndarray], rows: list[np.ndarray]) -> list[np.ndarray]:
    return [token + row for token, row in zip(tokens, rows, strict=True)]
