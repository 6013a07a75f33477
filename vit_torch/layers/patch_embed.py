"""Picture to patch tokens."""

from __future__ import annotations

import torch
from torch import nn

from vit_spec import VitportError
from vit_torch.layers.initialization import make_patch_conv
from vit_torch.layers.norm import NormLayer


class PatchEmbed(nn.Module):
    """Cuts a picture into patches and projects each linearly (Dosovitskiy et al. 2021, equation 1).

    Args:
        image_size: height and width of the pictures, in pixels.
        patch_size: side of a patch, in pixels.
        in_channels: channels of the pictures.
        embed_dim: width of a token.
        bias: whether the projection has a bias.
        norm: makes a norm over the tokens; ``None`` for none.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        norm: NormLayer | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.in_channels = in_channels
        self.proj = make_patch_conv(in_channels, embed_dim, patch_size, bias=bias)
        self.norm = nn.Identity() if norm is None else norm(embed_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, N, D), the patches row by row.

        Raises:
            VitportError: if the pictures have another shape than the layer was made for.
        """
        self._check(images)
        x = self.proj(images)  # (B, D, H/P, W/P)
        x = x.flatten(2).transpose(1, 2)  # (B, N, D)
        return self.norm(x)

    def _check(self, images: torch.Tensor) -> None:
        _check_images(images, self.in_channels, self.image_size)


@torch.fx.wrap  # symbolic tracing records the call, since it cannot follow what depends on a shape
def _check_images(images: torch.Tensor, in_channels: int, image_size: tuple[int, int]) -> None:
    """Refuse images of another shape than (B, C, H, W)."""
    if images.ndim != 4:
        raise VitportError(
            f"images of shape {tuple(images.shape)} are no batch of pictures: expected (batch, channels, height, "
            "width)."
        )
    channels, height, width = images.shape[1:]
    if channels != in_channels:
        raise VitportError(
            f"images of shape {tuple(images.shape)} have {channels} channels on axis 1, but the model was made for "
            f"{in_channels}: pictures are (batch, channels, height, width) here."
        )
    if (height, width) != image_size:
        raise VitportError(
            f"pictures of {height}x{width} pixels do not fit a model made for "
            f"{image_size[0]}x{image_size[1]}: resize them, or create the model with "
            f"image_size=({height}, {width})."
        )
