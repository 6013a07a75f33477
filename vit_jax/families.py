"""The models of all families."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.model import VisionModel
from vit_spec import Config


def make_model(
    config: Config, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32, param_dtype: DTypeLike = jnp.float32
) -> VisionModel[Any]:
    """A new model of the config's family, whose folder names its class ``MODEL``."""
    family = import_module(f"vit_jax.{config.family}")
    return family.MODEL(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
