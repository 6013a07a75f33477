"""Stochastic depth (Huang et al. 2016): drops a residual branch for some images of a batch."""

from __future__ import annotations

from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.dropout import DropoutKeys, keep_mask
from vit_spec import VitportError


def drop_path(x: Float[Array, "B ..."], rate: float | Float[Array, ""], key: Array) -> Float[Array, "B ..."]:
    """Sets each sample, ``x[b]``, to zero with probability ``rate`` and divides the others by ``1 - rate``.

    The expected value is ``x``; shape (B, ...) and dtype are kept. ``key`` is (), or (B,), one for each sample.
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
            raise VitportError(f"DropPath's rate must be in [0, 1); got {rate}.")
        self.rate = rate
        self.deterministic = False

    def __call__(self, x: Float[Array, "B ..."], *, rngs: DropoutKeys | None = None) -> Float[Array, "B ..."]:
        """(B, ...) -> (B, ...), drawing from the stream ``dropout`` of ``rngs``.

        Raises:
            VitportError: in training mode without ``rngs``.
        """
        if self.deterministic or (isinstance(self.rate, (int, float)) and self.rate == 0):
            return x
        if rngs is None:
            raise VitportError("DropPath in training mode needs rngs=nnx.Rngs(dropout=key): pass it, or call eval().")
        return drop_path(x, self.rate, rngs.dropout())
