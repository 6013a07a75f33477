"""Where a model looks: attention rollout (Abnar & Zuidema 2020, section 3); a module for each family."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from vit_parity.capture import Capture
from vit_parity.rollout import vit
from vit_spec import ViTConfig, VitportError

FAMILIES: dict[type, ModuleType] = {ViTConfig: vit}
"""Class of the config -> the family's module."""


def rollout(capture: Capture, config: ViTConfig) -> np.ndarray:
    """How much of the pooled vector comes from each patch, through all blocks; the residual path is half of each.

    Args:
        capture: of a model with softmax attention in every block.

    Returns:
        (B, rows, columns), float64; an image's sum to at most 1, the rest belongs to prefix tokens.

    Raises:
        VitportError: if attention weights were not captured.
    """
    family = FAMILIES[type(config)]
    joint: np.ndarray | None = None
    for name in family.attention_weights(config):
        if name not in capture.activations:
            raise VitportError(f"The run has no {name}: rollout needs the attention weights of every block.")
        weights = capture.activations[name].astype(np.float64).mean(axis=1)  # (B, N, N)
        mixed = (weights + np.eye(weights.shape[-1])) / 2
        joint = mixed if joint is None else mixed @ joint
    if joint is None:
        raise VitportError("A model without blocks has no attention to roll out.")
    read = family.pooling_weights(capture, config, joint.shape[-1])
    seen = (read[:, None] @ joint)[:, 0, config.num_prefix_tokens :]
    return seen.reshape(-1, *config.grid_size)
