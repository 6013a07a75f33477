"""From one stage to the next: four tokens become one of twice the width."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vit_spec import SwinConfig
from vit_torch.layers.initialization import make_linear
from vit_torch.layers.norm import make_layer_norm


class PatchMerging(nn.Module):
    """Joins 2 x 2 tokens side by side and projects them (Liu et al. 2021, section 3.1).

    Version 1 norms before the projection, version 2 after it.

    Args:
        config: the model that the layer belongs to.
        stage: number of the stage that it leads to.
    """

    def __init__(self, config: SwinConfig, stage: int) -> None:
        super().__init__()
        before, after = config.widths[stage - 1], config.widths[stage]
        self.map_size = config.map_sizes[stage - 1]
        self.norm_first = config.version == 1
        self.norm = make_layer_norm(4 * before if self.norm_first else after, config.patch_norm_eps)
        self.reduction = make_linear(4 * before, after, bias=False)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B _ 2*D"]:
        """(B, N, D) -> (B, rows / 2 * columns / 2, 2 D), rounded up: an odd map is padded with zeros."""
        x = merge(x, self.map_size)
        return self.reduction(self.norm(x)) if self.norm_first else self.norm(self.reduction(x))


def merge(x: Float[Tensor, "B N D"], map_size: tuple[int, int]) -> Float[Tensor, "B _ 4*D"]:
    """2 x 2 tokens side by side, in the order (row, column) = 00, 10, 01, 11: (B, N, D) -> (B, N / 4, 4 D)."""
    rows, columns = map_size
    D = x.shape[-1]
    x = x.reshape(-1, rows, columns, D)
    if rows % 2 or columns % 2:
        x = functional.pad(x, (0, 0, 0, columns % 2, 0, rows % 2))
    down, across = -(-rows // 2), -(-columns // 2)
    x = x.reshape(-1, down, 2, across, 2, D).permute(0, 1, 3, 4, 2, 5)
    return x.reshape(-1, down * across, 4 * D)
