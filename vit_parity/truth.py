"""The reference for rounding errors: both frameworks in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vit_parity.capture import Capture
from vit_parity.flow import Flow, flow
from vit_parity.measure import relative
from vit_parity.stagewise import Stages
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
    return true_flow(checkpoint, images).capture()


def true_flow(checkpoint: Checkpoint, images: np.ndarray) -> Flow:
    """:func:`truth_of` a stage at a time."""
    wide = images.astype(np.float64)

    def stages() -> Stages:
        torch, jax = (flow(name, checkpoint, wide, "float64").stages() for name in ("torch", "jax"))
        for (stage, found), (_, mirror) in zip(torch, jax, strict=True):
            yield stage, {name: _agreed(name, found.pop(name), mirror.pop(name)) for name in list(found)}

    return Flow("truth", wide, np.dtype(np.float64), {"dtype": "float64"}, stages)


def _agreed(name: str, array: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """The mean."""
    distance = relative(mirror, array)
    if not distance <= AGREEMENT:
        raise VitportError(
            f"PyTorch and JAX in float64 differ by {distance:.1e} at {name}, so there is no reference: check the "
            "weights and the image for NaN and infinity."
        )
    mean = array + mirror
    mean /= 2
    return mean
