"""JAX models holding given weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from conversion import from_flax, to_flax
from tests.random_weights import random_array, random_images, random_params
from vit_jax import get_params, set_params
from vit_jax.families import make_model
from vit_jax.model import VisionModel
from vit_spec import Config


def jax_model(config: Config, params: Mapping[str, np.ndarray], dtype: DTypeLike = jnp.float64) -> VisionModel:
    """A model in training mode, its weights and its computation in ``dtype``; float64 needs x64 to be on."""
    model = nnx.eval_shape(lambda: make_model(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype))
    set_params(model, to_flax(params))
    return model


def nhwc(images: np.ndarray, dtype: DTypeLike = jnp.float64) -> jax.Array:
    """(B, C, H, W) -> (B, H, W, C)."""
    return jnp.asarray(images.transpose(0, 2, 3, 1), dtype)


def quick_jit(function: Callable) -> Callable:
    """``jax.jit`` without LLVM's optimisation: the same operations, compiled in half the time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@cache
def jax_output(config: Config, seed: int, batch: int, dtype: str) -> np.ndarray:
    """What the model with random weights answers to random images in evaluation mode; compiled once per run."""
    with jax.enable_x64(dtype == "float64"):
        model = jax_model(config, random_params(config, seed), dtype)
        model.eval()
        graphdef, state = nnx.split(model)
        run = quick_jit(lambda state, x: nnx.merge(graphdef, state)(x))
        return np.asarray(run(state, nhwc(random_images(config, batch, seed), dtype)))


def randomize(module: nnx.Module, at: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Gives a layer random weights; returns them under their canonical names in a model's place ``at``."""
    rng = np.random.default_rng(seed)
    zeros = {f"{at}/{path}": np.zeros(array.shape) for path, array in get_params(module).items()}
    params = {name: random_array(name, array.shape, rng) for name, array in sorted(from_flax(zeros).items())}
    set_params(module, {path.removeprefix(f"{at}/"): array for path, array in to_flax(params).items()})
    return params
