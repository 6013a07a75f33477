"""The models whose answers goldens.npz keeps, and what they are asked; needs neither framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.random_weights import random_array
from vit_spec import ViTConfig, parameters

GOLDENS = Path(__file__).parent / "goldens.npz"

_BASE = ViTConfig(
    image_size=(12, 20), patch_size=4, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=41, num_classes=7
)
MODELS = {
    "plain": _BASE.replace(representation_size=13),
    "distilled": _BASE.replace(distilled=True, final_norm="pooled", activation="gelu_tanh", qk_scale=0.6),
    "registers": _BASE.replace(
        register_tokens=2, layer_scale=1e-5, mlp="swiglu_packed", activation="silu", pool="token_avg", pos_embed="patch"
    ),
    "map": _BASE.replace(
        pool="map", class_token=False, mlp="swiglu", mlp_norm=True, norm="rmsnorm", norm_bias=False, qk_norm=True
    ),
    "clip": _BASE.replace(
        pre_norm=True, activation="quick_gelu", patch_bias=False, in_channels=1, num_classes=0, final_norm="pooled"
    ),
    "parallel": _BASE.replace(block="parallel", layer_scale=1e-5, qk_scale=0.6, pool="avg", pool_prefix=True),
    "post-norm": _BASE.replace(block="post_norm", attn_norm=True, proj_bias=False),
}
"""Oblong images throughout: 3 by 5 patches."""


class Question:
    """What a model is asked: its weights, its images, and a direction to project each parameter's gradient on.

    Drawn from ``RandomState``, whose numbers numpy has frozen; those of ``Generator`` may change from release to
    release.
    """

    def __init__(self, config: ViTConfig) -> None:
        draw = np.random.RandomState(7)
        self.params = {
            parameter.name: random_array(parameter.name, parameter.shape, draw) for parameter in parameters(config)
        }
        self.images = draw.standard_normal((2, config.in_channels, *config.image_size))  # (B, C, H, W)
        self.directions = {name: draw.standard_normal(array.shape) for name, array in self.params.items()}

    def measure(self, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Norm of every parameter's gradient and its projection on the direction, in the order of the parameters."""
        assert gradients.keys() == self.params.keys()
        return {
            "norms": np.array([np.linalg.norm(gradients[name]) for name in self.params]),
            "projections": np.array([np.vdot(gradients[name], along) for name, along in self.directions.items()]),
        }
