"""Images to patch tokens."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.initialization import Init, make_patch_conv
from vit_jax.layers.norm import NormLayer
from vit_spec import VitportError


class PatchEmbed(nnx.Module):
    """Splits images into patches and projects each linearly (Dosovitskiy et al. 2021, equation 1).

    Args:
        image_size: height and width of the images, in pixels.
        patch_size: side of a patch, in pixels.
        in_channels: channels of the images.
        embed_dim: width of a token.
        bias: whether the projection has a bias.
        pixel_norm: makes a norm over the pixels of a patch, before the projection; ``None`` for none.
        norm: makes a norm over the tokens; ``None`` for none.
        pad: whether zeros complete the rows at the bottom and columns at the right that fill no patch; else they are
            not read.
        init: random numbers and dtypes.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        pixel_norm: NormLayer | None = None,
        norm: NormLayer | None = None,
        pad: bool = False,
        *,
        init: Init,
    ) -> None:
        self.image_size = image_size
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.margin = (-image_size[0] % patch_size, -image_size[1] % patch_size) if pad else (0, 0)
        self.pixel_norm = None if pixel_norm is None else pixel_norm(patch_size * patch_size * in_channels)
        self.proj = make_patch_conv(in_channels, embed_dim, patch_size, bias=bias, init=init)
        self.norm = nnx.identity if norm is None else norm(embed_dim)

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B N D"]:
        """(B, H, W, C) -> (B, N, D), patches in row-major order.

        Raises:
            VitportError: if the images do not have the channels and size of the layer, or are integers.
        """
        _check_images(images, self.in_channels, self.image_size)
        images = _padded(images, self.margin)
        if self.pixel_norm is not None:
            images = self._normed(images, self.pixel_norm)
        return self.norm(_tokens(self.proj(images)))

    def _normed(self, images: Float[Array, "B H W C"], norm: nnx.Module) -> Float[Array, "B _ _ C"]:
        """The images without their margin, the pixels of each patch normed: (B, H, W, C) -> (B, h P, w P, C)."""
        C, P = self.in_channels, self.patch_size
        rows, columns = self.image_size[0] // P, self.image_size[1] // P
        whole = images[:, : rows * P, : columns * P].reshape(-1, rows, P, columns, P, C)
        pixels = whole.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, P * P * C)
        x = norm(pixels).reshape(-1, rows, columns, P, P, C).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, rows * P, columns * P, C)


def _padded(images: Float[Array, "B H W C"], margin: tuple[int, int]) -> Float[Array, "B _ _ C"]:
    """Zeros below and on the right."""
    below, right = margin
    return jnp.pad(images, ((0, 0), (0, below), (0, right), (0, 0))) if any(margin) else images


def _check_images(images: Array, in_channels: int, image_size: tuple[int, int]) -> None:
    """Refuse images of another shape than (B, H, W, C), and bytes."""
    if images.ndim != 4:
        raise VitportError(
            f"images of shape {tuple(images.shape)} are not a batch: expected (batch, height, width, channels)."
        )
    height, width, channels = images.shape[1:]
    if channels != in_channels:
        raise VitportError(
            f"images of shape {tuple(images.shape)} have {channels} channels on axis 3, but the model was made for "
            f"{in_channels}: pass (batch, height, width, channels)."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise VitportError(
            f"images have the dtype {images.dtype}, but a model takes normalised floats: scale them to 0 to 1, "
            "subtract the mean and divide by the standard deviation of its preprocessing."
        )
    if (height, width) != image_size:
        raise VitportError(
            f"images of {height}x{width} pixels do not fit a model made for {image_size[0]}x"
            f"{image_size[1]}: resize them, or create the model with image_size=({height}, {width})."
        )


def _tokens(x: Float[Array, "B rows columns D"]) -> Float[Array, "B rows*columns D"]:
    """Positions of a feature map in row-major order: (B, H/P, W/P, D) -> (B, N, D)."""
    B, rows, columns, D = x.shape
    return x.reshape(B, rows * columns, D)
