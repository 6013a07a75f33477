"""Stochastic depth (Huang et al. 2016): a residual branch is left out for some pictures of a batch."""

from __future__ import annotations

import jax
from flax import nnx

from vit_jax.layers.dropout import DropoutKeys, keep_mask
from vit_spec import VitportError


def drop_path(x: jax.Array, rate: float | jax.Array, key: jax.Array) -> jax.Array:
    """Sets each sample, ``x[b]``, to zero with probability ``rate`` and divides the others by ``1 - rate``.

    The expectation stays ``x``; shape (B, ...) and dtype are kept. ``key`` is (), or (B,), one for each sample.
    """
    keep = 1.0 - rate
    mask = keep_mask(key, keep, (x.shape[0], *[1] * (x.ndim - 1)))  # (B, 1, ...)
    return (x / keep * mask).astype(x.dtype)


class DropPath(nnx.Module):
    """:func:`drop_path` in training mode; the identity in evaluation and at rate 0.

    Args:
        rate: probability in [0, 1) that a sample is dropped.
    """

    def __init__(self, rate: float = 0.0) -> None:
        if not 0.0 <= rate < 1.0:
            raise VitportError(f"DropPath rate={rate} is no rate: give a number from 0 up to, not including, 1.")
        self.rate = rate
        self.deterministic = False

    def __call__(self, x: jax.Array, *, rngs: DropoutKeys | None = None) -> jax.Array:
        """(B, ...) -> (B, ...); the stream ``dropout`` of ``rngs`` is drawn from.

        Raises:
            VitportError: in training mode without ``rngs``.
        """
        if self.deterministic or (isinstance(self.rate, (int, float)) and self.rate == 0):
            return x
        if rngs is None:
            raise VitportError("DropPath in training mode needs rngs=nnx.Rngs(dropout=key): pass it, or call eval().")
        return drop_path(x, self.rate, rngs.dropout())
