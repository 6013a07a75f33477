"""Small Swin Transformers whose weights show every mistake, and files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import conversion
from vit_parity.semantics import semantics_of_file
from vit_spec import Kind, SwinConfig, parameters

BASE = SwinConfig().replace(
    image_size=32, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_sizes=4,
    pretrained_window_sizes=0, num_classes=5, window_rule="min", mlp_ratio=3.0,
)  # fmt: skip
"""Maps of 16 x 16 and 8 x 8: two and four windows a side, shifted in both."""
BACKBONE = BASE.replace(num_classes=0, stage_norms=(0,), window_rule="never", window_sizes=5, image_size=(24, 40))


def weights(config: SwinConfig, seed: int = 0, dtype: type = np.float64) -> dict[str, np.ndarray]:
    """Gains of norms 1 ± 0.3, biases of 0.3, tables of 1.5, scales up to e^3."""
    random = np.random.default_rng(seed)
    found = {}
    for it in parameters(config):
        values = random.standard_normal(it.shape)
        if it.kind is Kind.NORM:
            values = 1 + 0.3 * values
        elif it.kind is Kind.OFFSETS:
            values = 1.5 * values
        elif it.kind is Kind.SCALE:
            values = random.uniform(1, 3, it.shape)
        elif it.kind is Kind.BIAS:
            values = 0.3 * values
        else:
            values = 0.2 * values
        found[it.name] = values.astype(dtype)
    return found


def checkpoint(config: SwinConfig, seed: int = 0, dtype: type = np.float64) -> conversion.Checkpoint:
    """A model in memory."""
    return conversion.Checkpoint.of(config, weights(config, seed, dtype))


def images(config: SwinConfig, seed: int = 3) -> np.ndarray:
    """(2, H, W, C), standard normal, in float64."""
    return np.random.default_rng(seed).standard_normal((2, *config.image_size, config.in_channels))


def outputs(path: Path, config: SwinConfig) -> dict[str, np.ndarray]:
    """What a file means by its own names: its logits or pooled features under ``head``, and its maps."""
    return semantics_of_file(path, config).run(images(config))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
