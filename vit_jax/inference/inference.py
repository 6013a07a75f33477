"""A model in evaluation mode as a pure function of its parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vit_jax.model import VisionModel
from vit_jax.pure import Params, Pure


class Inference:
    """A model in evaluation mode as a function of a flat dictionary of parameters.

    Args:
        model: its config, dtypes and parameter paths are used, not its values; it is left in evaluation mode.
    """

    def __init__(self, model: VisionModel) -> None:
        model.eval()
        self.config = model.config
        self.dtype = jnp.dtype(model.dtype)
        self._model = Pure(model)

    def __call__(self, params: Params, images: jax.Array) -> jax.Array:
        """(B, H, W, C) -> logits (B, K), or features (B, D) where the model has no head."""
        logits = self._model(params)(images)
        assert not isinstance(logits, tuple)  # so it is in training mode alone
        return logits
