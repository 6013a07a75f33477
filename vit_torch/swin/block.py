"""One Swin Transformer layer."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from vit_spec import SwinConfig
from vit_torch.layers.drop_path import DropPath
from vit_torch.layers.mlp import Mlp
from vit_torch.layers.norm import make_layer_norm
from vit_torch.layers.residual import add
from vit_torch.swin.window_attention import WindowAttention


class SwinBlock(nn.Module):
    """Attention within windows, then an MLP (Liu et al. 2021, equation 3).

    Version 1 normalises the inputs of both branches, version 2 their outputs (Liu et al. 2022, section 3.2).

    Args:
        config: the model that the block belongs to.
        stage: number of the stage.
        shifted: whether windows are shifted by half their size.
        drop_path: rate of stochastic depth of both residual branches.
    """

    def __init__(self, config: SwinConfig, stage: int, shifted: bool, drop_path: float = 0.0) -> None:
        super().__init__()
        c, D = config, config.widths[stage]
        self.post_norm = c.version == 2
        self.norm1 = make_layer_norm(D, c.norm_eps)
        self.attn = WindowAttention(c, stage, shifted)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = make_layer_norm(D, c.norm_eps)
        self.mlp = Mlp(D, c.hidden_dim(stage), act=c.activation, drop=c.drop_rate)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """(B, N, D) -> (B, N, D)."""
        if self.post_norm:
            x = add(x, self.drop_path1(self.norm1(self.attn(x))))
            return add(x, self.drop_path2(self.norm2(self.mlp(x))))
        x = add(x, self.drop_path1(self.attn(self.norm1(x))))
        return add(x, self.drop_path2(self.mlp(self.norm2(x))))
