"""The answer that rounding errors are measured against: both frameworks in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vit_parity.bound import relative
from vit_parity.capture import Capture, capture_jax, capture_torch
from vit_spec import VitportError

if TYPE_CHECKING:
    from conversion import Checkpoint

AGREEMENT = 1e-12
"""Relative L2 distance that the two may have in any activation; 1e-15 is usual."""


def truth_of(checkpoint: Checkpoint, images: np.ndarray) -> Capture:
    """Both frameworks in float64 on the same pictures, and the mean of the two.

    Args:
        checkpoint: the weights, widened to float64.
        images: (B, H, W, C), preprocessed.

    Raises:
        VitportError: if the two differ by more than :data:`AGREEMENT`, so that neither is known to be true.
    """
    import jax
    import torch

    import vit_jax
    import vit_torch

    wide = images.astype(np.float64)
    torch_model = vit_torch.create_model(weights=checkpoint, dtype=torch.float64).eval()
    found = capture_torch(torch_model, wide).activations
    del torch_model
    with jax.enable_x64(True):
        jax_model = vit_jax.create_model(weights=checkpoint, dtype=np.float64, param_dtype=np.float64)
        jax_model.eval()
        mirror = capture_jax(jax_model, wide).activations
    for name, array in found.items():
        distance = relative(mirror[name], array)
        if not distance <= AGREEMENT:
            raise VitportError(
                f"PyTorch and JAX in float64 differ by {distance:.1e} at {name}, so there is no truth to compare with: "
                "look for NaN or infinity in the weights and the picture."
            )
        found[name] = (array + mirror[name]) / 2
    return Capture("truth", found, wide, {"dtype": "float64"})
