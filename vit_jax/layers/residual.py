"""Sums along the residual stream, in the form that XLA computes best."""

from __future__ import annotations

from vit_jax.layers.xla.packed import sum_projections
from vit_jax.layers.xla.rows import add

__all__ = ["add", "sum_projections"]
