"""The part of preprocessing that runs on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vit_spec import Preprocessing, VitportError


def normalise(images: jax.Array, preprocessing: Preprocessing | None) -> jax.Array:
    """uint8 images (B, H, W, C) as float32: divided by 255, minus the mean, over the standard deviation.

    Floats are taken as normalised already and returned unchanged.

    Raises:
        VitportError: for uint8 images without ``preprocessing``.
    """
    if images.dtype != jnp.uint8:
        return images
    if preprocessing is None:
        raise VitportError(
            "The images are uint8, and their mean and standard deviation are unknown: pass preprocessing=, or "
            "normalised floats."
        )
    mean, std = (jnp.asarray(values, jnp.float32) for values in (preprocessing.mean, preprocessing.std))
    return (images.astype(jnp.float32) / 255 - mean) / std
