"""The one entry to inference: a model, or its weights, as one compiled function of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.create import create_model
from vit_jax.inference.data_parallel import DataParallel, offer_cores
from vit_jax.inference.inference import Inference
from vit_jax.inference.microbatch import microbatched
from vit_jax.layers import attention
from vit_jax.model import VisionModel
from vit_jax.params import get_params
from vit_jax.preprocessing import normalise
from vit_jax.pure import Params
from vit_spec import Preprocessing, VitportError

if TYPE_CHECKING:
    from conversion import Checkpoint

LONG = 1000
"""Tokens from which on XLA's CPU kernel is quicker where the softmax is normalized before the product with the values:
DINOv3 ViT-S at 512 pixels (1,029 tokens) took half the time; of few tokens more."""


def attend_forward(q: jax.Array, k: jax.Array, v: jax.Array, *options: Any) -> jax.Array:
    """:func:`vit_jax.layers.attention.attend_fused`, or what a forward pass alone computes faster."""
    long = q.shape[2] >= LONG and jax.default_backend() == "cpu"
    return (attention.attend if long else attention.attend_fused)(q, k, v, *options)


def compile_inference(
    model: VisionModel | Checkpoint | str | Path,
    batch: int,
    *,
    preprocessing: Preprocessing | None = None,
    attend: Callable[..., jax.Array] = attend_forward,
    dtype: DTypeLike | None = None,
) -> DataParallel:
    """Compiles the model in evaluation mode, with fused attention, for all devices of this process.

    The devices share each batch. On CPUs every core becomes a device (:func:`offer_cores`), and each device runs large
    batches in microbatches that stay in its caches. JAX fixes its devices when it first computes anything, which
    making a model does: to use all cores, pass weights rather than a model, or call :func:`offer_cores` first.

    Args:
        model: a model, which stays as it is, or the weights of one: a path or a checkpoint.
        batch: images in each call. The devices that share them are as many as divide the batch.
        preprocessing: mean and standard deviation of uint8 images; ``None`` takes those of the checkpoint.
        attend: an attention function of :mod:`vit_jax.layers.attention`.
        dtype: of the computation, where weights are given: ``None`` is float32. A model has its own.

    Returns:
        A function from images (batch, H, W, C), in numpy or JAX, to logits (batch, K), or to features (batch, D) where
        the model has no head. uint8 images are normalised; floats are taken as normalised already.

    Raises:
        VitportError: if the weights cannot be read, or a dtype is given for a model. The function raises it for
            another number of images, and for uint8 images whose mean and standard deviation are unknown.
    """
    offer_cores()
    if isinstance(model, VisionModel):
        if dtype is not None:
            raise VitportError(f"dtype={jnp.dtype(dtype)} is for weights: a model computes in its own, {model.dtype}.")
        model = nnx.merge(*nnx.split(model))  # so that the caller's keeps its mode and attention; arrays are shared
    else:
        import conversion

        checkpoint = conversion.prepare(None, weights=model)
        preprocessing = preprocessing or checkpoint.preprocessing
        model = create_model(weights=checkpoint, dtype=dtype or jnp.float32)
    attention.set_attention(model, attend)
    inference = microbatched(Inference(model))

    def forward(params: Params, images: jax.Array) -> jax.Array:
        return inference(params, normalise(images, preprocessing))

    return DataParallel(forward, get_params(model), batch)
