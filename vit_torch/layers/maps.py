"""How the outputs of single blocks are given."""

from __future__ import annotations

import torch
from jaxtyping import Float

from vit_spec import OutputFormat, check_output_format

Intermediates = list[torch.Tensor] | list[tuple[torch.Tensor, torch.Tensor]]
"""Outputs of blocks: patches, or pairs of patches and prefix tokens."""


def as_format(
    patches: Float[torch.Tensor, "B N D"], grid_size: tuple[int, int], output_fmt: OutputFormat
) -> Float[torch.Tensor, "B N D"] | Float[torch.Tensor, "B _ _ _"]:
    """Tokens of patches (B, rows * columns, D) in a format.

    Raises:
        VitportError: for an unknown format.
    """
    check_output_format(output_fmt)
    if output_fmt == "NLC":
        return patches
    maps = patches.reshape(patches.shape[0], *grid_size, -1)  # (B, rows, columns, D)
    return maps if output_fmt == "NHWC" else maps.permute(0, 3, 1, 2).contiguous()
