"""Dropout (Srivastava et al. 2014): what ``torch.nn.Dropout`` is in PyTorch, and where its random numbers come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from vit_spec import VitportError


class DropoutKeys(Protocol):
    """What a forward pass in training mode draws from: ``nnx.Rngs(dropout=key)``, or :class:`PictureRngs`."""

    def dropout(self) -> jax.Array:
        """The next key, (), or one for each picture, (B,)."""
        ...


class PictureRngs:
    """Random keys of the pictures of a batch, so that what is drawn for one does not hang on which others are with it.

    Args:
        keys: (B,).
    """

    def __init__(self, keys: jax.Array) -> None:
        self._keys, self._drawn = keys, 0

    def dropout(self) -> jax.Array:
        """The next key of each picture, (B,)."""
        keys = jax.vmap(jax.random.fold_in, (0, None))(self._keys, self._drawn)
        self._drawn += 1
        return keys


class Dropout(nnx.Module):
    """Sets values to zero with probability ``rate`` and divides the others by ``1 - rate``, in training mode.

    Args:
        rate: probability in [0, 1).
    """

    def __init__(self, rate: float = 0.0) -> None:
        if not 0.0 <= rate < 1.0:
            raise VitportError(f"Dropout rate={rate} is no rate: give a number from 0 up to, not including, 1.")
        self.rate = rate
        self.deterministic = False

    def __call__(self, x: jax.Array, *, rngs: DropoutKeys | None = None) -> jax.Array:
        """(B, ...) -> (B, ...); the dtype is kept.

        Raises:
            VitportError: in training mode without ``rngs``.
        """
        if self.deterministic or self.rate == 0:
            return x
        if rngs is None:
            raise VitportError("Dropout in training mode needs rngs=nnx.Rngs(dropout=key): pass it, or call eval().")
        keep = 1.0 - self.rate
        return jnp.where(keep_mask(rngs.dropout(), keep, x.shape), x / keep, 0)


def keep_mask(key: jax.Array, keep: float | jax.Array, shape: Sequence[int]) -> jax.Array:
    """True with probability ``keep``, of that shape.

    Args:
        key: (), or (B,), one for each row of the first axis.
        keep: in (0, 1].
        shape: (B, ...).
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):  # made by jax.random.PRNGKey
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        return jax.random.bernoulli(key, keep, shape)
    return jax.vmap(lambda one: jax.random.bernoulli(one, keep, shape[1:]))(key)
