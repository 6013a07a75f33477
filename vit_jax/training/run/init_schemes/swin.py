"""Initialization schemes of Swin Transformers besides the model's own, which is the published one."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from vit_jax.params import parameters_by_path
from vit_jax.training.recipe.config import Initialization, Positions
from vit_spec import Kind, Stage, SwinConfig, VitportError
from vit_spec.swin.initialization import STD


def initialized(
    params: Mapping[str, jax.Array], name: Initialization, positions: Positions, config: SwinConfig, key: jax.Array
) -> dict[str, jax.Array]:
    """The parameters of a new model, float32, initialized by the named scheme."""
    del positions, key
    return by_width(params, config) if name == "width" else dict(params)


def check_scheme(name: Initialization, positions: Positions, config: SwinConfig) -> None:
    """Checks that the model can have these initial values.

    Raises:
        VitportError: for a scheme of Vision Transformers.
    """
    del config
    if name not in ("vit", "width") or positions != "learned":
        raise VitportError(
            f"model.initialization={name} and positions={positions} are a scheme for Vision Transformers: a Swin "
            "Transformer has its own initial values, or those by width."
        )


def by_width(params: Mapping[str, jax.Array], config: SwinConfig) -> dict[str, jax.Array]:
    """Linear layers that preserve the variance of their inputs.

    The published standard deviation, 0.02, suits widths of hundreds; at a width of 20 the signal would vanish.
    """
    known = parameters_by_path(config)

    def widened(path: str) -> bool:
        it = known[path]
        return it.kind is Kind.LINEAR and it.decays and it.stage in (Stage.BLOCK, Stage.MERGE)

    return {path: array / (STD * np.sqrt(array.shape[0])) if widened(path) else array for path, array in params.items()}
