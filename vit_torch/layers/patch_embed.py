"""Images to patch tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional

from vit_spec import VitportError
from vit_torch.layers.initialization import make_patch_conv
from vit_torch.layers.norm import NormLayer


class PatchEmbed(nn.Module):
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
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.margin = (-image_size[0] % patch_size, -image_size[1] % patch_size) if pad else (0, 0)
        self.pixel_norm = None if pixel_norm is None else pixel_norm(patch_size * patch_size * in_channels)
        self.proj = make_patch_conv(in_channels, embed_dim, patch_size, bias=bias)
        self.norm = nn.Identity() if norm is None else norm(embed_dim)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        """(B, C, H, W) -> (B, N, D), patches in row-major order.

        Raises:
            VitportError: if the images do not have the channels and size of the layer, or are integers.
        """
        _check_images(images, self.in_channels, self.image_size)
        images = _padded(images, self.margin)
        if self.pixel_norm is not None:
            images = self._normed(images, self.pixel_norm)
        return self.norm(_tokens(self.proj(images)))

    def _normed(self, images: Float[Tensor, "B C H W"], norm: nn.Module) -> Float[Tensor, "B C _ _"]:
        """The images without their margin, the pixels of each patch normed: (B, C, H, W) -> (B, C, h P, w P)."""
        C, P = self.in_channels, self.patch_size
        rows, columns = self.image_size[0] // P, self.image_size[1] // P
        whole = images[:, :, : rows * P, : columns * P].reshape(-1, C, rows, P, columns, P)
        pixels = whole.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows, columns, P * P * C)
        x = norm(pixels).reshape(-1, rows, columns, P, P, C).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(-1, C, rows * P, columns * P)


def _padded(images: Float[Tensor, "B C H W"], margin: tuple[int, int]) -> Float[Tensor, "B C _ _"]:
    """Zeros below and on the right."""
    below, right = margin
    return functional.pad(images, (0, right, 0, below)) if any(margin) else images


@fx.wrap  # symbolic tracing records the call, because it cannot follow what depends on a shape
def _check_images(images: Tensor, in_channels: int, image_size: tuple[int, int]) -> None:
    """Refuse images of another shape than (B, C, H, W), and bytes."""
    if images.ndim != 4:
        raise VitportError(
            f"images of shape {tuple(images.shape)} are not a batch: expected (batch, channels, height, width)."
        )
    channels, height, width = images.shape[1:]
    if channels != in_channels:
        raise VitportError(
            f"images of shape {tuple(images.shape)} have {channels} channels on axis 1, but the model was made for "
            f"{in_channels}: pass (batch, channels, height, width)."
        )
    if not torch.is_floating_point(images):
        raise VitportError(
            f"images have the dtype {images.dtype}, but a model takes normalised floats: scale them to 0 to 1, "
            "subtract the mean and divide by the standard deviation of its preprocessing."
        )
    if (height, width) != image_size:
        raise VitportError(
            f"images of {height}x{width} pixels do not fit a model made for {image_size[0]}x"
            f"{image_size[1]}: resize them, or create the model with image_size=({height}, {width})."
        )


def _tokens(x: Float[Tensor, "B D rows columns"]) -> Float[Tensor, "B rows*columns D"]:
    """Positions of a feature map in row-major order: (B, D, H/P, W/P) -> (B, N, D)."""
    return x.flatten(2).transpose(1, 2)
