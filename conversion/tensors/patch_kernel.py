"""The kernel of the patch embedding brought to another patch size."""

from __future__ import annotations

import numpy as np

from conversion.tensors.position_table import interpolation_matrix
from vit_spec import Config, Kind, VitportError, parameters


def patch_kernel_name(old: Config, new: Config) -> str:
    """The parameter that projects patches, where another size of patches or another number of channels changes it.

    Args:
        old: the model before.
        new: the model with the other patches.

    Raises:
        VitportError: if another parameter has a number for each pixel too, for which no rule of resizing is known.
    """
    kernel = next(it.name for it in parameters(old) if it.kind is Kind.CONV)
    shapes = {it.name: it.shape for it in parameters(new)}
    fixed = [it.name for it in parameters(old) if it.kind is Kind.NORM and it.shape != shapes.get(it.name)]
    if fixed:
        raise VitportError(
            f"{', '.join(fixed)} has a factor for each pixel of a patch, and no rule resizes it: keep the patch size "
            "and the number of channels of the weights."
        )
    return kernel


def resize_patch_kernel(kernel: np.ndarray, patch_size: int) -> np.ndarray:
    """The kernel for larger or smaller patches that answers as the old one did (FlexiViT, Beyer et al. 2023,
    section 3.4: pseudo-inverse resize).

    Let B resize a patch from P to P' pixels a side, bilinearly, as the image is resized. The new kernel w' is the one
    whose answer to B x is the nearest to the old one's to x, for x of independent pixels: w' = (Bᵀ)⁺ w. For larger
    patches the two answers are equal. B acts along height and width apart, so its pseudo-inverse does too.

    Args:
        kernel: (D, C, P, P), of any float dtype; the result has the same one. The arithmetic is in float64.
        patch_size: P', in pixels.

    Returns:
        (D, C, P', P').

    Raises:
        VitportError: if ``patch_size`` is less than 1.
    """
    if patch_size < 1:
        raise VitportError(f"patch_size={patch_size} is too small: it must be at least 1.")
    resize = interpolation_matrix(kernel.shape[-1], patch_size, "torch-bilinear")  # (P', P)
    inverse = np.linalg.pinv(resize.T)  # (P', P)
    resized = np.einsum("ay,bx,dcyx->dcab", inverse, inverse, kernel.astype(np.float64), optimize=True)
    return resized.astype(kernel.dtype)


def resize_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The kernel for another number of image channels (timm's ``adapt_input_conv``).

    For one channel it is the sum over the old ones, so that a grey image gives what it gave as an image of equal
    channels. For n channels the old C ones are repeated in turn and scaled by C / n, so that a constant image keeps its
    response on average.

    Args:
        kernel: (D, C, P, P), of any float dtype; the result has the same one. The arithmetic is in float64.
        channels: n, at least 1.

    Returns:
        (D, n, P, P).
    """
    C, exact = kernel.shape[1], kernel.astype(np.float64)
    if channels == 1:
        return exact.sum(axis=1, keepdims=True).astype(kernel.dtype)
    return (exact[:, np.arange(channels) % C] * (C / channels)).astype(kernel.dtype)
