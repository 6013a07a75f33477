"""One stage: blocks over maps of one size."""

from __future__ import annotations

from torch import nn

from vit_spec import SwinConfig
from vit_torch.swin.block import SwinBlock
from vit_torch.swin.patch_merging import PatchMerging


class SwinStage(nn.Module):
    """Patch merging, but in the first stage, then blocks, every other of them with shifted windows.

    It holds them; the model calls them.

    Args:
        config: the model that the stage belongs to.
        stage: its number.
    """

    def __init__(self, config: SwinConfig, stage: int) -> None:
        super().__init__()
        before = sum(config.depths[:stage])
        rates = config.drop_path_rates[before : before + config.depths[stage]]
        self.downsample = PatchMerging(config, stage) if stage else nn.Identity()
        self.blocks = nn.ModuleList(SwinBlock(config, stage, at % 2 == 1, rate) for at, rate in enumerate(rates))
