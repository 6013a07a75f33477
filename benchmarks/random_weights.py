"""Random weights and images that leave no part of a model idle: norms, biases, scales and tokens of order 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from vit_spec import Kind, Parameter, ViTConfig, parameters


def random_params(config: ViTConfig, seed: int, dtype: DTypeLike = np.float64) -> dict[str, np.ndarray]:
    """Canonical name → array for every parameter.

    Matrices keep the variance of what they are applied to, so attention is neither uniform nor one-hot and logits are
    of order 1; norm factors and layer scales lie around 1 ± 0.3.
    """
    rng = np.random.default_rng(seed)
    return {parameter.name: random_array(parameter, rng).astype(dtype) for parameter in parameters(config)}


def random_images(config: ViTConfig, batch: int, seed: int) -> np.ndarray:
    """(B, C, H, W), float64, standard normal."""
    return np.random.default_rng(seed).standard_normal((batch, config.in_channels, *config.image_size))


def random_array(parameter: Parameter, rng: np.random.Generator) -> np.ndarray:
    """One parameter, float64."""
    noise = rng.standard_normal(parameter.shape)
    if parameter.kind in (Kind.LINEAR, Kind.CONV):
        return noise / math.sqrt(math.prod(parameter.shape[1:]))
    if parameter.kind is Kind.NORM or parameter.name.endswith(".gamma"):
        return 1.0 + 0.3 * noise
    return noise * (0.3 if parameter.kind is Kind.BIAS else 0.7)
