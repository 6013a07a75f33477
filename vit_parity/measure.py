"""The difference of two arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vit_spec import VitportError


@dataclass(frozen=True)
class Difference:
    """Four measures of ``actual - reference``, taken in float64."""

    max_abs: float
    """Largest absolute difference, in the arrays' own unit."""
    mean_abs: float
    """Mean absolute difference, in the arrays' own unit."""
    relative: float
    """L2 norm of the difference over L2 norm of the reference; no unit."""
    cosine: float
    """Cosine of the angle between the two, each taken as one long vector."""


def measure(actual: np.ndarray, reference: np.ndarray) -> Difference:
    """Compare two arrays of one shape, of any float dtype.

    Two arrays of zeros have relative difference 0 and cosine 1; where only one is zero, the cosine is 0 and, if that
    one is the reference, the relative difference infinite. NaN anywhere makes every measure NaN.

    Raises:
        VitportError: if the shapes differ.
    """
    if actual.shape != reference.shape:
        raise VitportError(
            f"Arrays of shape {actual.shape} and {reference.shape} cannot be compared: their shapes must be equal."
        )
    a, b = actual.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    difference = a - b
    norm_a, norm_b, norm_difference = (float(np.linalg.norm(vector)) for vector in (a, b, difference))
    cosine = float(norm_a == norm_b)  # where one is zero
    if norm_a and norm_b:
        cosine = float((a / norm_a) @ (b / norm_b))
    return Difference(
        max_abs=float(np.abs(difference).max(initial=0.0)),
        mean_abs=float(np.abs(difference).mean()) if difference.size else 0.0,
        relative=norm_difference / norm_b if norm_b else (0.0 if norm_difference == 0 else float("inf")),
        cosine=cosine,
    )


def measure_all(actual: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """:func:`measure` for every name that both have, in the order of ``actual``."""
    return {name: measure(array, reference[name]) for name, array in actual.items() if name in reference}
