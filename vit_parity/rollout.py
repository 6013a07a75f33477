"""Where a model looks: attention rollout (Abnar & Zuidema 2020, section 3)."""

from __future__ import annotations

import numpy as np

from vit_parity.capture import Capture
from vit_spec import ViTConfig, VitportError


def rollout(capture: Capture, config: ViTConfig) -> np.ndarray:
    """What each patch is to the pooled vector, through all blocks, attention being half of each.

    Args:
        capture: of a model with softmax attention in every block.

    Returns:
        (B, rows, columns), float64, each picture's summing to at most 1: the rest went to prefix tokens.

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
    patches = joint[:, :, config.num_prefix_tokens :]
    # The class token is what the head reads; where there is none, patches are pooled.
    seen = patches[:, 0] if config.pool == "token" else patches[:, config.num_prefix_tokens :].mean(axis=1)
    rows, columns = (side // config.patch_size for side in config.image_size)
    return seen.reshape(-1, rows, columns)
