"""Dropout (Srivastava et al. 2014), the twin of ``torch.nn.Dropout``, and the source of its random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_spec import VitportError


@runtime_checkable  # for whoever checks types at run time
class DropoutKeys(Protocol):
    """Random keys of a forward pass in training mode: ``nnx.Rngs(dropout=key)``, or :class:`ImageRngs`."""

    def dropout(self) -> Array:
        """The next key, (), or the next key of each image, (B,)."""
        ...


class ImageRngs:
    """Random keys for each image of a batch, so that an image's masks do not depend on its batch.

    Args:
        keys: (B,).
    """

    def __init__(self, keys: Array) -> None:
        self._keys, self._drawn = keys, 0

    def dropout(self) -> Array:
        """The next key of each image, (B,)."""
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
            raise VitportError(f"Dropout's rate must be in [0, 1); got {rate}.")
        self.rate = rate
        self.deterministic = False

    def __call__(self, x: Float[Array, "*shape"], *, rngs: DropoutKeys | None = None) -> Float[Array, "*shape"]:
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


def keep_mask(key: Array, keep: float | Array, shape: Sequence[int]) -> Array:
    """A boolean array that is True with probability ``keep``.

    Args:
        key: (), or (B,), one for each image: of the first axis it gets a row, or as many as the image has windows.
        keep: probability, in (0, 1].
        shape: of the result, (B, ...) or (B windows, ...).
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):  # made by jax.random.PRNGKey
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        return jax.random.bernoulli(key, keep, shape)
    if shape[0] == len(key):
        return jax.vmap(lambda one: jax.random.bernoulli(one, keep, shape[1:]))(key)
    own = (shape[0] // len(key), *shape[1:])
    return jax.vmap(lambda one: jax.random.bernoulli(one, keep, own))(key).reshape(shape)
