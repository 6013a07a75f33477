"""Initial values of published recipes, a module for each family: what is drawn how depends on its parameters."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from vit_jax.training.recipe.config import ModelOptions
from vit_spec import Config, VitportError, family_module


def check_scheme(options: ModelOptions, config: Config) -> None:
    """Checks, before the state is made, that the model can have the initial values that the options name.

    Raises:
        VitportError: if it cannot.
    """
    family = family_module(__name__, config)
    if family is not None:
        family.check_scheme(options.initialization, options.positions, config)
        return
    usual = ModelOptions()
    for name in ("initialization", "positions"):
        if getattr(options, name) != getattr(usual, name):
            raise VitportError(
                f"model.{name}={getattr(options, name)} is a scheme for Vision Transformers, and the model is of the "
                f"family {config.family}: leave it out."
            )


def initialized(
    params: Mapping[str, jax.Array], options: ModelOptions, config: Config, key: jax.Array
) -> dict[str, jax.Array]:
    """The parameters of a new model, float32, initialized by the scheme that the options name.

    Args:
        params: with the model's own initial values.
        key: random values depend on it and on the parameter's path.
    """
    family = family_module(__name__, config)
    if family is None:
        return dict(params)
    return family.initialized(params, options.initialization, options.positions, config, key)
