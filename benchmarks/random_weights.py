"""Random weights and images that leave no part of a model idle: norms, biases, scales and tokens of order 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from vit_spec import Config, parameters


def random_params(config: Config, seed: int, dtype: DTypeLike = np.float64) -> dict[str, np.ndarray]:
    """Canonical name → array for every parameter.

    Matrices keep the variance of what they are applied to, so attention is neither uniform nor one-hot and logits are
    of order 1; norm factors and layer scales lie around 1 ± 0.3, scales of cosines around 33.
    """
    rng = np.random.default_rng(seed)
    return {it.name: random_array(it.name, it.shape, rng).astype(dtype) for it in parameters(config)}


def random_images(config: Config, batch: int, seed: int) -> np.ndarray:
    """(B, C, H, W), float64, standard normal."""
    return np.random.default_rng(seed).standard_normal((batch, config.in_channels, *config.image_size))


def random_array(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One parameter, float64, of a model or of a layer by itself."""
    noise = rng.standard_normal(shape)
    leaf = name.rpartition(".")[2]
    if leaf == "weight" and len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    if leaf in ("weight", "gamma"):
        return 1.0 + 0.3 * noise
    if leaf == "logit_scale":
        return 3.5 + noise  # one in seven beyond ln 100, where it is clamped
    return noise * (0.3 if leaf == "bias" else 0.7)
