"""Arrays that a config determines: they belong to no state, and are never trained."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


class Constant:
    """An array that is a static part of a module: the same values make the same constant.

    Args:
        values: never changed afterwards.
    """

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self._key = (values.shape, values.dtype.str, values.tobytes())

    def __getitem__(self, index: Any) -> jax.Array:
        return jnp.asarray(self._values)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def make_constant(values: Any, dtype: DTypeLike = np.int32) -> Constant:
    """A constant of a module, from nested sequences of numbers."""
    return Constant(np.array(values, dtype))


@lru_cache(maxsize=16)
def make_table(values: tuple[tuple[float, ...], ...]) -> Constant:
    """A constant of a module, from rows of float64 numbers: the same object for the same values, compared at once."""
    return Constant(np.array(values, np.float64))
