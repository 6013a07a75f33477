"""The attention weights of a plain ViT: those of its blocks, and what pooling reads."""

from __future__ import annotations

import numpy as np

from vit_parity.capture import Capture
from vit_spec import ViTConfig, VitportError


def attention_weights(config: ViTConfig) -> tuple[tuple[str, ...], ...]:
    """The activations (B, h, N, N) of each block, whose attentions are added where it has several branches.

    Raises:
        VitportError: for attention that subtracts one softmax from another.
    """
    if config.differential:
        raise VitportError(
            "Attention rollout multiplies shares, but differential attention subtracts one softmax from another: "
            "compare the activations attn.softmax instead."
        )
    branches = [f"attns.{branch}." for branch in range(config.branches)] if config.block == "branched" else [""]
    return tuple(tuple(f"blocks.{at}.{own}attn.softmax" for own in branches) for at in range(config.depth))


def pooling_weights(capture: Capture, config: ViTConfig, tokens: int) -> np.ndarray:
    """How much of the pooled vector comes from each of the last tokens: (1 or B, N), rows sum to 1."""
    own = np.zeros((1, tokens))
    own[:, : 2 if config.distilled else 1] = 0.5 if config.distilled else 1.0
    if config.pool == "token":
        return own
    first = 0 if config.pool_prefix else config.num_prefix_tokens
    if config.pool == "map":
        pooled = _attention_pool(capture, config)
        return np.concatenate([np.zeros((len(pooled), first)), pooled], axis=1)
    mean = np.zeros((1, tokens))
    mean[:, first:] = 1 / (tokens - first)
    return (own + mean) / 2 if config.pool == "token_avg" else mean


def _attention_pool(capture: Capture, config: ViTConfig) -> np.ndarray:
    """The attention pool's weights, (B, N), averaged over its heads."""
    q, kv = (capture.activations[f"attn_pool.{layer}"].astype(np.float64) for layer in ("q", "kv"))
    heads = config.pool_heads
    keys = kv.reshape(*kv.shape[:2], 2, heads, -1)[:, :, 0]  # (B, N, h, d)
    logits = np.einsum("hd,bnhd->bhn", q.reshape(heads, -1), keys) * keys.shape[-1] ** -0.5
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).mean(axis=1)
