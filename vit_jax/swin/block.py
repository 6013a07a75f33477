"""One Swin Transformer layer."""

from __future__ import annotations

from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.dropout import DropoutKeys
from vit_jax.layers.initialization import Init
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import make_layer_norm
from vit_jax.layers.residual import add
from vit_jax.swin.window_attention import WindowAttention
from vit_spec import SwinConfig


class SwinBlock(nnx.Module):
    """Attention within windows, then an MLP (Liu et al. 2021, equation 3).

    Version 1 normalises the inputs of both branches, version 2 their outputs (Liu et al. 2022, section 3.2).

    Args:
        config: the model that the block belongs to.
        stage: number of the stage.
        shifted: whether windows are shifted by half their size.
        drop_path: rate of stochastic depth of both residual branches.
        init: random numbers and dtypes.
    """

    def __init__(self, config: SwinConfig, stage: int, shifted: bool, drop_path: float = 0.0, *, init: Init) -> None:
        c, D = config, config.widths[stage]
        self.post_norm = c.version == 2
        self.norm1 = make_layer_norm(D, c.norm_eps, init=init)
        self.attn = WindowAttention(c, stage, shifted, init=init)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = make_layer_norm(D, c.norm_eps, init=init)
        self.mlp = Mlp(D, c.hidden_dim(stage), act=c.activation, drop=c.drop_rate, init=init)
        self.drop_path2 = DropPath(drop_path)

    def __call__(self, x: Float[Array, "B N D"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """(B, N, D) -> (B, N, D); ``rngs`` is required if dropout or stochastic depth is active."""
        if self.post_norm:
            x = add(x, self.drop_path1(self.norm1(self.attn(x, rngs=rngs)), rngs=rngs))
            return add(x, self.drop_path2(self.norm2(self.mlp(x, rngs=rngs)), rngs=rngs))
        x = add(x, self.drop_path1(self.attn(self.norm1(x), rngs=rngs), rngs=rngs))
        return add(x, self.drop_path2(self.mlp(self.norm2(x), rngs=rngs), rngs=rngs))
