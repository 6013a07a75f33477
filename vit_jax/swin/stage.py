"""One stage: blocks over maps of one size."""

from __future__ import annotations

from flax import nnx

from vit_jax.layers.initialization import Init
from vit_jax.swin.block import SwinBlock
from vit_jax.swin.patch_merging import PatchMerging
from vit_spec import SwinConfig


class SwinStage(nnx.Module):
    """Patch merging, but in the first stage, then blocks, every other of them with shifted windows.

    It holds them; the model calls them.

    Args:
        config: the model that the stage belongs to.
        stage: its number.
        init: random numbers and dtypes.
    """

    def __init__(self, config: SwinConfig, stage: int, *, init: Init) -> None:
        before = sum(config.depths[:stage])
        rates = config.drop_path_rates[before : before + config.depths[stage]]
        self.downsample = PatchMerging(config, stage, init=init) if stage else nnx.identity
        self.blocks = nnx.List(SwinBlock(config, stage, at % 2 == 1, rate, init=init) for at, rate in enumerate(rates))
