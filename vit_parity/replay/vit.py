"""The forward pass of a plain ViT."""

from __future__ import annotations

import re

import numpy as np

from vit_parity.pieces import by_rows
from vit_parity.points import answer_name
from vit_parity.replay.common import Replay
from vit_parity.replay.rotary import turned
from vit_parity.semantics.layers import ACTIVATIONS, softmax
from vit_spec.vit.differential import EPS, initial_share


def forward(r: Replay, stage: str, x: np.ndarray) -> np.ndarray:
    """One stage on the tokens before it: ``embed`` reads the images, ``head`` gives the model's output."""
    if stage == "embed":
        return _embed(r)
    return _head(r, x) if stage == "head" else _block(r, stage, x)


def _embed(r: Replay) -> np.ndarray:
    """Images -> (B, N, D)."""
    c, images = r.config, r.model.images.astype(np.float64)
    (B, H, W, C), P = images.shape, c.patch_size
    covered = images[:, : H // P * P, : W // P * P]
    cut = covered.reshape(B, H // P, P, W // P, P, C).transpose(0, 1, 3, 2, 4, 5).reshape(B, H // P, W // P, -1)
    if c.pixel_norm:
        cut = r.note("patch_embed.pixel_norm", r.norm("patch_embed.pixel_norm", cut))
    cut = cut.reshape(B, c.num_patches, -1)
    kernel = r.params["patch_embed.proj.weight"].transpose(0, 2, 3, 1).reshape(c.embed_dim, -1)  # (D, P P C)
    x = r.model.linear(cut, kernel, r.params.get("patch_embed.proj.bias", 0.0))
    x = r.note("patch_embed.proj", x)
    if c.patch_norm:
        x = r.note("patch_embed.norm", r.norm("patch_embed.norm", x))
    prefix = [r.params[name] for name in ("cls_token", "dist_token", "reg_token") if name in r.params]
    tokens = np.concatenate([*prefix, np.zeros((1, 0, c.embed_dim))], axis=1)  # (1, prefix, D)
    positioned = c.num_positioned_prefix_tokens
    if c.pos_embed != "none":
        x = x + r.params["pos_embed"][:, positioned:]
        rows = r.params["pos_embed"][:, :positioned] * (not r.model.bare_prefix)
        tokens = np.concatenate([tokens[:, :positioned] + rows, tokens[:, positioned:]], axis=1)
    x = np.concatenate([np.broadcast_to(tokens, (B, *tokens.shape[1:])), x], axis=1)
    if c.pre_norm:
        x = r.norm("norm_pre", r.note("tokens", x))
    return r.note("embed", x)


def _block(r: Replay, at: str, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, N, D)."""
    if r.config.block == "parallel":
        return _parallel_block(r, at, x)
    if r.config.block == "original":
        return _original_block(r, at, x)
    if r.config.block == "branched":
        return _branched_block(r, at, x)
    post = r.config.block == "post_norm"
    y = x if post else r.note(f"{at}.norm1", r.norm(f"{at}.norm1", x))
    y = _attention_layer(r, at, y)
    y = r.note(f"{at}.norm1", r.norm(f"{at}.norm1", y)) if post else y
    y = _scale(r, f"{at}.ls1", y)
    x = r.note(f"{at}.mid", x + y)
    y = x if post else r.note(f"{at}.norm2", r.norm(f"{at}.norm2", x))
    y = _mlp(r, f"{at}.mlp", y, r.config.mlp)
    y = r.note(f"{at}.norm2", r.norm(f"{at}.norm2", y)) if post else y
    y = _scale(r, f"{at}.ls2", y)
    return r.note(at, x + y)


def _original_block(r: Replay, at: str, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, N, D)."""
    x = r.note(f"{at}.mid", x + _scale(r, f"{at}.ls1", _attention_layer(r, at, x)))
    x = r.note(f"{at}.norm1", r.norm(f"{at}.norm1", x))
    x = x + _scale(r, f"{at}.ls2", _mlp(r, f"{at}.mlp", x, r.config.mlp))
    x = r.note(f"{at}.norm2", r.norm(f"{at}.norm2", x))
    return r.note(at, x)


def _branched_block(r: Replay, at: str, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, N, D)."""
    y = 0.0
    for own in (f"{at}.attns.{branch}" for branch in range(r.config.branches)):
        y = y + _scale(r, f"{own}.ls", _attention_layer(r, own, r.note(f"{own}.norm", r.norm(f"{own}.norm", x))))
    x = r.note(f"{at}.mid", x + y)
    y = 0.0
    for own in (f"{at}.ffns.{branch}" for branch in range(r.config.branches)):
        z = _mlp(r, f"{own}.mlp", r.note(f"{own}.norm", r.norm(f"{own}.norm", x)), r.config.mlp)
        y = y + _scale(r, f"{own}.ls", z)
    return r.note(at, x + y)


def _attention_layer(r: Replay, at: str, x: np.ndarray) -> np.ndarray:
    """Attention with its projection, (B, N, D) -> (B, N, D)."""
    y = _attention(r, at, r.note(f"{at}.attn.qkv", r.linear(f"{at}.attn.qkv", x)), f"{at}.attn")
    y = r.note(f"{at}.attn.norm", r.norm(f"{at}.attn.norm", y)) if r.config.attn_norm else y
    return r.note(f"{at}.attn.proj", r.linear(f"{at}.attn.proj", y))


def _parallel_block(r: Replay, at: str, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, N, D)."""
    y = r.note(f"{at}.in_norm", r.norm(f"{at}.in_norm", x))
    y = r.note(f"{at}.in_proj", r.linear(f"{at}.in_proj", y))
    hidden, qkv = y[..., : r.config.hidden_dim], y[..., r.config.hidden_dim :]
    attention = r.linear(f"{at}.attn_out_proj", _attention(r, at, qkv, at))
    attention = r.note(f"{at}.attn_out_proj", attention)
    hidden = hidden + r.params.get(f"{at}.mlp_bias", 0.0)
    hidden = r.note(f"{at}.mlp.act", by_rows(ACTIVATIONS[r.config.activation], hidden))
    y = attention + r.note(f"{at}.mlp_out_proj", r.linear(f"{at}.mlp_out_proj", hidden))
    return r.note(at, x + _scale(r, f"{at}.ls", y))


def _attention(r: Replay, at: str, qkv: np.ndarray, norms: str) -> np.ndarray:
    """(B, N, 3 D) -> the heads side by side, (B, N, D)."""
    c, (B, N, _) = r.config, qkv.shape
    if r.model.heads_first:
        parts = qkv.reshape(B, N, c.num_heads, 3, c.head_dim).transpose(3, 0, 2, 1, 4)
    else:
        parts = qkv.reshape(B, N, 3, c.num_heads, c.head_dim).transpose(2, 0, 3, 1, 4)  # 3 of (B, h, N, d)
    q, k, v = (parts[at] for at in r.model.qkv_places)
    q, k = q + _by_head(r, f"{norms}.q_bias"), k + _by_head(r, f"{norms}.k_bias")
    if c.differential:
        q, k = (x.reshape(*x.shape[:-1], 2, c.qk_dim) for x in (q, k))  # (B, h, N, 2, d / 2)
    if c.qk_norm:
        q, k = r.norm(f"{norms}.q_norm", q), r.norm(f"{norms}.k_norm", k)
    q, k, v = (r.note(f"{at}.attn.{name}", part) for name, part in zip("qkv", (q, k, v), strict=True))
    frequencies = r.params.get(f"{norms}.rotary.freqs")
    q, k, v = turned(r, q, frequencies), turned(r, k, frequencies), v + _by_head(r, f"{norms}.v_bias")
    if c.differential:
        q, k = (np.concatenate([x[..., 0, :], x[..., 1, :]], axis=1) for x in (q, k))  # (B, 2 h, N, d / 2)
        v = np.concatenate([v, v], axis=1)
    logits = r.model.attention_product(q * c.attention_scale, k.swapaxes(-2, -1))  # (B, h, N, N)
    weights = r.note(f"{at}.attn.softmax", by_rows(softmax, logits + relative_bias(r, norms)))
    heads = r.model.attention_product(weights, v)
    heads = _difference(r, at, f"{norms}.difference", heads) if c.differential else heads
    return r.note(f"{at}.attn.heads", heads.swapaxes(1, 2).reshape(B, N, -1))


def _difference(r: Replay, block: str, at: str, heads: np.ndarray) -> np.ndarray:
    """Heads of both softmaxes, (B, 2 h, N, d) -> (B, h, N, d)."""
    first, second = np.split(heads, 2, axis=1)
    initial = initial_share(int(re.findall(r"\d+", block)[0]))
    q1, k1, q2, k2 = (r.params[f"{at}.lambda_{name}"] for name in ("q1", "k1", "q2", "k2"))
    x = first - (np.exp(q1 @ k1) - np.exp(q2 @ k2) + initial) * second
    x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPS)
    return (1 - initial) * x * r.params[f"{at}.sub_norm.weight"]


def relative_bias(r: Replay, at: str) -> np.ndarray | float:
    """(h, N, N); 0 if the model has none. Deviations: ``key to query``, ``class rows swapped``; of a network also
    ``columns first``, ``offsets not log-spaced``, ``offsets over the largest``."""
    if r.config.relative_hidden_dim is not None:
        return _network_bias(r, f"{at}.rel_pos.mlp")
    if (table := r.params.get(f"{at}.relative_position_bias_table")) is None:
        return 0.0
    rows, columns = r.config.grid_size
    row, column = np.divmod(np.arange(rows * columns), columns)
    down, right = (place[:, None] - place for place in (row, column))
    if "key to query" in r.model.deviations:
        down, right = -down, -right
    places = (down + rows - 1) * (2 * columns - 1) + right + columns - 1
    if not r.config.class_token:
        return table[places].transpose(2, 0, 1)
    index = np.full((1 + len(row), 1 + len(row)), len(table) - 1)
    index[0, 1:], index[1:, 0] = len(table) - 3, len(table) - 2
    if "class rows swapped" in r.model.deviations:
        index[0, 1:], index[1:, 0] = len(table) - 2, len(table) - 3
    index[1:, 1:] = places
    return table[index].transpose(2, 0, 1)


def _network_bias(r: Replay, at: str) -> np.ndarray:
    """(h, N, N), by the network of that name for each pair of patches; 0 for prefix tokens."""
    c, deviations, offsets = r.config, r.model.deviations, []
    for place, side in zip(np.divmod(np.arange(c.num_patches), c.grid_size[1]), c.grid_size, strict=True):
        offset = (place[:, None] - place) * (-1.0 if "key to query" in deviations else 1.0)
        if "offsets over the largest" in deviations:
            offset = 8 * offset / max(side - 1, 1)
        linear = "offsets not log-spaced" in deviations
        offsets.append(offset if linear else np.sign(offset) * np.log(1 + np.abs(offset)))
    pairs = np.stack(offsets[::-1] if "columns first" in deviations else offsets, axis=-1)  # (P, P, 2)
    bias = r.linear(f"{at}.fc2", np.maximum(r.linear(f"{at}.fc1", pairs), 0.0))
    prefix = (c.num_prefix_tokens, 0)
    return np.pad(bias.transpose(2, 0, 1), ((0, 0), prefix, prefix))


def _by_head(r: Replay, name: str) -> np.ndarray | float:
    """A bias of queries or values, or of keys in a hypothesis, (h, 1, d); 0 if the model has none."""
    return r.params[name].reshape(r.config.num_heads, 1, -1) if name in r.params else 0.0


def _mlp(r: Replay, at: str, x: np.ndarray, kind: str) -> np.ndarray:
    """(..., D) -> (..., D)."""
    c = r.config
    if kind == "swiglu":
        gate = r.note(f"{at}.fc1_g", r.linear(f"{at}.fc1_g", x))
        value = r.note(f"{at}.fc1_x", r.linear(f"{at}.fc1_x", x))
    else:
        gate = r.note(f"{at}.fc1", r.linear(f"{at}.fc1", x))
        gate, value = (gate[..., : c.hidden_dim], gate[..., c.hidden_dim :]) if kind != "plain" else (gate, 1.0)
    x = r.note(f"{at}.act", by_rows(ACTIVATIONS[c.activation], gate) * value)
    x = r.note(f"{at}.norm", r.norm(f"{at}.norm", x)) if f"{at}.norm.weight" in r.params else x
    return r.note(f"{at}.fc2", r.linear(f"{at}.fc2", x))


def _scale(r: Replay, at: str, x: np.ndarray) -> np.ndarray:
    """Layer scale, (..., D) -> (..., D); the identity if the model has none."""
    if f"{at}.gamma" not in r.params:
        return x
    return r.note(at, x if r.model.skips(at) else x * r.params[f"{at}.gamma"])


def _head(r: Replay, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, K)."""
    c, p = r.config, r.params
    x = r.note("norm", r.norm("norm", x)) if c.final_norm == "tokens" else x
    x = r.note("pooled", _pool(r, x))
    x = r.note("fc_norm", r.norm("fc_norm", x)) if c.final_norm == "pooled" else x
    if c.pre_logits_dim is not None:
        x = r.linear("pre_logits.fc", x)
        x = r.note("pre_logits", x if r.model.skips("pre_logits.act") else np.tanh(x))
    if c.distilled:
        both = [x[:, 0], x[:, 1]]
        if c.num_classes:
            both = [r.note(at, r.linear(at, y)) for at, y in zip(("head", "head_dist"), both, strict=True)]
        x = (both[0] + both[1]) / 2
    elif c.num_classes and "head.weight" in p:
        x = r.linear("head", x)
    return r.note(answer_name(c), x)


def _pool(r: Replay, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, D); (B, 2, D) with a distillation token."""
    c = r.config
    if c.distilled:
        return x[:, :2]
    patches = x if c.pool_prefix else x[:, c.num_prefix_tokens :]
    if c.pool == "map":
        return _attention_pool(r, patches)
    if c.pool == "token":
        return x[:, 0]
    mean = patches.mean(axis=1)
    return mean if c.pool == "avg" else np.concatenate([x[:, 0], mean], axis=-1)


def _attention_pool(r: Replay, x: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, D)."""
    c, (B, N, D) = r.config, x.shape
    q = r.note("attn_pool.q", r.linear("attn_pool.q", r.params["attn_pool.latent"]))  # (1, 1, D)
    kv = r.note("attn_pool.kv", r.linear("attn_pool.kv", x)).reshape(B, N, 2, c.pool_heads, -1)
    k, v = kv.transpose(2, 0, 3, 1, 4)  # (B, h, N, d) each
    q = q.reshape(1, 1, c.pool_heads, -1).swapaxes(1, 2)
    weights = softmax(r.model.attention_product(q * (D / c.pool_heads) ** -0.5, k.swapaxes(-2, -1)))  # (B, h, 1, N)
    y = r.note("attn_pool.heads", r.model.attention_product(weights, v).reshape(B, D))
    y = r.note("attn_pool.proj", r.linear("attn_pool.proj", y))
    return y + _mlp(r, "attn_pool.mlp", r.note("attn_pool.norm", r.norm("attn_pool.norm", y)), "plain")
