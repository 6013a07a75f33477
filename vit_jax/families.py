"""The models of all families."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.model import VisionModel
from vit_spec import Config, needed_module


def make_model(
    config: Config, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32, param_dtype: DTypeLike = jnp.float32
) -> VisionModel[Any]:
    """A new model of the config's family, whose folder names its class ``MODEL``."""
    return needed_module("vit_jax", config, "have no model in JAX yet").MODEL(
        config, rngs=rngs, dtype=dtype, param_dtype=param_dtype
    )
