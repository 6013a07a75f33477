"""The reference for rounding errors: both frameworks in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vit_parity.bound import relative
from vit_parity.capture import Capture, capture_jax, capture_torch
from vit_parity.frameworks import jax_dtype, jax_model, torch_model
from vit_spec import VitportError

if TYPE_CHECKING:
    from conversion import Checkpoint

AGREEMENT = 1e-12
"""Largest relative L2 distance between the two in any activation; 1e-15 is usual."""


def truth_of(checkpoint: Checkpoint, images: np.ndarray) -> Capture:
    """Both frameworks in float64 on the same images, and the mean of the two.

    Args:
        checkpoint: the weights, widened to float64.
        images: (B, H, W, C), preprocessed.

    Raises:
        VitportError: if the two differ by more than :data:`AGREEMENT`, so neither can serve as the reference.
    """
    wide = images.astype(np.float64)
    found = capture_torch(torch_model(checkpoint, "float64"), wide).activations
    with jax_dtype("float64"):
        mirror = capture_jax(jax_model(checkpoint, "float64"), wide).activations
    for name, array in found.items():
        distance = relative(mirror[name], array)
        if not distance <= AGREEMENT:
            raise VitportError(
                f"PyTorch and JAX in float64 differ by {distance:.1e} at {name}, so there is no reference: check the "
                "weights and the image for NaN and infinity."
            )
        found[name] = (array + mirror[name]) / 2
    return Capture("truth", found, wide, {"dtype": "float64"})
