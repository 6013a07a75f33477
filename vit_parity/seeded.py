"""Random numbers by a seed that a user gives."""

from __future__ import annotations

import numpy as np

from vit_spec import VitportError


def seeded(seed: int) -> np.random.Generator:
    """
    Raises:
        VitportError: for a negative seed.
    """
    if seed < 0:
        raise VitportError(f"seed must be 0 or more; got {seed}.")
    return np.random.default_rng(seed)
