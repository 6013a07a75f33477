"""Where a model looks: attention rollout (Abnar & Zuidema 2020, section 3)."""

from __future__ import annotations

import numpy as np

from vit_parity.capture import Capture
from vit_spec import ViTConfig, VitportError


def rollout(capture: Capture, config: ViTConfig) -> np.ndarray:
    """How much of the pooled vector comes from each patch, through all blocks; the residual path is half of each.

    Args:
        capture: of a model with softmax attention in every block.

    Returns:
        (B, rows, columns), float64; an image's sum to at most 1, the rest belongs to prefix tokens.

    Raises:
        VitportError: if attention weights were not captured.
    """
    joint: np.ndarray | None = None
    for block in range(config.depth):
        name = f"blocks.{block}.attn.softmax"
        if name not in capture.activations:
            raise VitportError(f"The run has no {name}: rollout needs the attention weights of every block.")
        weights = capture.activations[name].astype(np.float64).mean(axis=1)  # (B, N, N)
        mixed = (weights + np.eye(weights.shape[-1])) / 2
        joint = mixed if joint is None else mixed @ joint
    if joint is None:
        raise VitportError("A model without blocks has no attention to roll out.")
    seen = (_read(capture, config, joint.shape[-1])[:, None] @ joint)[:, 0, config.num_prefix_tokens :]
    rows, columns = (side // config.patch_size for side in config.image_size)
    return seen.reshape(-1, rows, columns)


def _read(capture: Capture, config: ViTConfig, tokens: int) -> np.ndarray:
    """How much of the pooled vector comes from each of the last tokens: (1 or B, N), rows sum to 1."""
    own = np.zeros((1, tokens))
    own[:, : 2 if config.distilled else 1] = 0.5 if config.distilled else 1.0
    if config.pool == "token":
        return own
    first = 0 if config.pool_prefix else config.num_prefix_tokens
    if config.pool == "map":
        pooled = _pooling_weights(capture, config)
        return np.concatenate([np.zeros((len(pooled), first)), pooled], axis=1)
    mean = np.zeros((1, tokens))
    mean[:, first:] = 1 / (tokens - first)
    return (own + mean) / 2 if config.pool == "token_avg" else mean


def _pooling_weights(capture: Capture, config: ViTConfig) -> np.ndarray:
    """The attention pool's weights, (B, N), averaged over its heads."""
    q, kv = (capture.activations[f"attn_pool.{layer}"].astype(np.float64) for layer in ("q", "kv"))
    heads = config.num_heads
    keys = kv.reshape(*kv.shape[:2], 2, heads, -1)[:, :, 0]  # (B, N, h, d)
    logits = np.einsum("hd,bnhd->bhn", q.reshape(heads, -1), keys) * keys.shape[-1] ** -0.5
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).mean(axis=1)
