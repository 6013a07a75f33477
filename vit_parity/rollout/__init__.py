"""Where a model looks: attention rollout (Abnar & Zuidema 2020, section 3); a module for each family."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from vit_parity.capture import Capture
from vit_parity.points import patch_maps
from vit_spec import Config, VitportError, needed_module


def rollout(capture: Capture, config: Config) -> np.ndarray:
    """How much of the pooled vector comes from each patch, through all blocks; the residual path is half of each.

    Where a block adds several attentions, the path and each of them have equal shares, as in the paper's derivation:
    what is added is normalised.

    Args:
        capture: of a model with softmax attention in every block.

    Returns:
        (B, rows, columns), float64; an image's sum to at most 1, the rest belongs to prefix tokens.

    Raises:
        VitportError: if attention weights were not captured, or as :func:`of_family`.
    """
    family = of_family(config)
    joint: np.ndarray | None = None
    for names in family.attention_weights(config):
        if missing := [name for name in names if name not in capture.activations]:
            raise VitportError(f"The run has no {missing[0]}: rollout needs the attention weights of every block.")
        heads = [capture.activations[name].astype(np.float64).mean(axis=1) for name in names]
        weights = np.sum(heads, axis=0)  # (B, N, N)
        mixed = (weights + np.eye(weights.shape[-1])) / (1 + len(names))
        joint = mixed if joint is None else mixed @ joint
    if joint is None:
        raise VitportError("A model without blocks has no attention to roll out.")
    read = family.pooling_weights(capture, config, joint.shape[-1])
    seen = (read[:, None] @ joint)[:, 0, :, None]  # (B, N, 1)
    maps = patch_maps(seen, config)
    assert maps is not None  # there is a weight for each token
    return maps[..., 0]


def of_family(config: Config) -> ModuleType:
    """How a family's attention is read.

    Raises:
        VitportError: if its attention is not among all tokens.
    """
    return needed_module(__name__, config, "have no attention rollout: it needs attention among all tokens")
