"""Small models run in both frameworks, for the tests of what is measured on them."""

from __future__ import annotations

import numpy as np
import torch

import vit_jax
import vit_torch
from conversion import Checkpoint
from tests.random_weights import random_images, random_params
from vit_parity import Capture, capture_jax, capture_torch
from vit_parity.replay import ReplayedModel, float64_params
from vit_spec import ViTConfig


def checkpoint(config: ViTConfig, seed: int = 1) -> Checkpoint:
    return Checkpoint.of(config, random_params(config, seed=seed, dtype=np.float32))


def random_batch(config: ViTConfig, batch: int = 2, seed: int = 2) -> np.ndarray:
    """(B, H, W, C) float32."""
    return random_images(config, batch, seed).transpose(0, 2, 3, 1).astype(np.float32)


def run_torch(weights: Checkpoint, images: np.ndarray, dtype: str = "float32", title: str = "torch") -> Capture:
    model = vit_torch.create_model(weights=weights, dtype=getattr(torch, dtype)).eval()
    return capture_torch(model, images, title)


def run_jax(weights: Checkpoint, images: np.ndarray, dtype: str = "float32", title: str = "jax") -> Capture:
    model = vit_jax.create_model(weights=weights, dtype=dtype, param_dtype=dtype)
    model.eval()
    return capture_jax(model, images, title)


def replayed_model(weights: Checkpoint, images: np.ndarray) -> ReplayedModel:
    return ReplayedModel(weights.config, float64_params(weights.params), images)
