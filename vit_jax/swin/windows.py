"""Maps cut into windows, and joined again (Liu et al. 2021, section 3.2)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vit_spec.swin.config import PadOrder
from vit_spec.swin.windows import Windowing


def cut(
    x: Float[Array, "B N D"], windowing: Windowing, shift: tuple[int, int], order: PadOrder
) -> Float[Array, "B*windows n D"]:
    """Tokens of maps (B, N, D) -> tokens of windows (B * windows, n, D), both in row-major order.

    The map is shifted cyclically, and padded with zeros to a multiple of the window.
    """
    (rows, columns), (height, width), (down, across) = windowing.map_size, windowing.window, windowing.grid
    x = x.reshape(-1, rows, columns, x.shape[-1])
    x = _pad(_roll(x, shift), windowing) if order == "roll_pad" else _roll(_pad(x, windowing), shift)
    x = x.reshape(-1, down, height, across, width, x.shape[-1]).swapaxes(2, 3)
    return x.reshape(-1, height * width, x.shape[-1])


def join(
    windows: Float[Array, "B*windows n D"], windowing: Windowing, shift: tuple[int, int], order: PadOrder
) -> Float[Array, "B N D"]:
    """The inverse of :func:`cut`; what stands in the padding is dropped."""
    (rows, columns), (height, width), (down, across) = windowing.map_size, windowing.window, windowing.grid
    x = windows.reshape(-1, down, across, height, width, windows.shape[-1]).swapaxes(2, 3)
    x = x.reshape(-1, *windowing.padded, x.shape[-1])
    back = (-shift[0], -shift[1])
    x = _roll(_crop(x, windowing), back) if order == "roll_pad" else _crop(_roll(x, back), windowing)
    return x.reshape(-1, rows * columns, x.shape[-1])


def _roll(x: Float[Array, "B rows columns D"], shift: tuple[int, int]) -> Float[Array, "B rows columns D"]:
    return jnp.roll(x, (-shift[0], -shift[1]), (1, 2)) if any(shift) else x


def _pad(x: Float[Array, "B rows columns D"], windowing: Windowing) -> Float[Array, "B _ _ D"]:
    if windowing.padded == windowing.map_size:
        return x
    below, right = (padded - side for padded, side in zip(windowing.padded, windowing.map_size, strict=True))
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))


def _crop(x: Float[Array, "B _ _ D"], windowing: Windowing) -> Float[Array, "B rows columns D"]:
    rows, columns = windowing.map_size
    return x if windowing.padded == windowing.map_size else x[:, :rows, :columns]
