"""Predicts a training step: operations, bytes, collectives, and the mesh to choose (docs/reports/scaling.md)."""

from vit_jax.training.devices.chips import CHIPS, Chip
from vit_jax.training.scaling.collectives import Collective, collectives
from vit_jax.training.scaling.predict import Assumptions, Prediction, predict, rank
from vit_jax.training.scaling.step import Step

__all__ = [
    "CHIPS",
    "Assumptions",
    "Chip",
    "Collective",
    "Prediction",
    "Step",
    "collectives",
    "predict",
    "rank",
]
