"""Picture to patch tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.layers.initialization import make_patch_conv
from vit_jax.layers.norm import NormLayer
from vit_spec import VitportError


class PatchEmbed(nnx.Module):
    """Cuts a picture into patches and projects each linearly (Dosovitskiy et al. 2021, equation 1).

    Args:
        image_size: height and width of the pictures, in pixels.
        patch_size: side of a patch, in pixels.
        in_channels: channels of the pictures.
        embed_dim: width of a token.
        bias: whether the projection has a bias.
        norm: makes a norm over the tokens; ``None`` for none.
        rngs: its stream ``params`` is drawn from.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        norm: NormLayer | None = None,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        self.image_size = image_size
        self.in_channels = in_channels
        self.proj = make_patch_conv(
            in_channels, embed_dim, patch_size, bias=bias, rngs=rngs, dtype=dtype, param_dtype=param_dtype
        )
        self.norm = nnx.identity if norm is None else norm(embed_dim)

    def __call__(self, images: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, N, D), the patches row by row.

        Raises:
            VitportError: if the pictures have another shape than the layer was made for.
        """
        self._check(images)
        x = self.proj(images)  # (B, H/P, W/P, D)
        B, rows, columns, D = x.shape
        x = x.reshape(B, rows * columns, D)  # (B, N, D)
        return self.norm(x)

    def _check(self, images: jax.Array) -> None:
        if images.ndim != 4:
            raise VitportError(
                f"images of shape {tuple(images.shape)} are no batch of pictures: expected (batch, height, width, "
                "channels)."
            )
        height, width, channels = images.shape[1:]
        if channels != self.in_channels:
            raise VitportError(
                f"images of shape {tuple(images.shape)} have {channels} channels on axis 3, but the model was made for "
                f"{self.in_channels}: pictures are (batch, height, width, channels) here."
            )
        if (height, width) != self.image_size:
            raise VitportError(
                f"pictures of {height}x{width} pixels do not fit a model made for "
                f"{self.image_size[0]}x{self.image_size[1]}: resize them, or create the model with "
                f"image_size=({height}, {width})."
            )
