"""How the outputs of single blocks are given."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from vit_spec import OutputFormat, check_output_format

Intermediates = list[jax.Array] | list[tuple[jax.Array, jax.Array]]
"""Outputs of blocks: patches, or pairs of patches and prefix tokens."""


def as_format(
    patches: Float[Array, "B N D"], grid_size: tuple[int, int], output_fmt: OutputFormat
) -> Float[Array, "B N D"] | Float[Array, "B _ _ _"]:
    """Tokens of patches (B, rows * columns, D) in a format.

    Raises:
        VitportError: for an unknown format.
    """
    check_output_format(output_fmt)
    if output_fmt == "NLC":
        return patches
    maps = patches.reshape(patches.shape[0], *grid_size, -1)  # (B, rows, columns, D)
    return maps if output_fmt == "NHWC" else maps.transpose(0, 3, 1, 2)
