"""The model that all sides of a comparison run: the same weights, images and labels in every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.random_weights import random_params
from conversion import Checkpoint
from vit_spec import ViTConfig, get_model


@dataclass(frozen=True)
class Subject:
    """A registered model, perhaps made smaller; its weights are random and leave no part of it idle."""

    model: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """``depth`` and ``image_size`` of a smaller one."""

    @property
    def config(self) -> Any:
        """The config, of any family."""
        return get_model(self.model).config.replace(**self.changes)

    def checkpoint(self) -> Checkpoint:
        """Float32 weights, the same at every call."""
        config = self.config
        return Checkpoint.of(config, random_params(config, 0, np.float32), get_model(self.model).preprocessing)

    def images(self, batch: int) -> np.ndarray:
        """(B, H, W, C), float32, standard normal."""
        return np.random.default_rng(1).standard_normal((batch, *self.config.image_size, 3), np.float32)

    def labels(self, batch: int) -> np.ndarray:
        """(B,), int32."""
        return np.random.default_rng(2).integers(0, self.config.num_classes, batch).astype(np.int32)


def product_shapes(config: ViTConfig, batch: int) -> dict[str, tuple[int, int, int]]:
    """Layer → (M, K, N) of its product (M, K) @ (K, N) over all tokens of a batch."""
    rows, D, hidden = batch * config.num_tokens, config.embed_dim, config.hidden_dim
    return {"qkv": (rows, D, 3 * D), "proj": (rows, D, D), "fc1": (rows, D, hidden), "fc2": (rows, hidden, D)}


PEAK_RATE = 1e-3
WEIGHT_DECAY = 0.05
"""AdamW's learning rate and decay in every training step; the rest are both libraries' defaults."""
