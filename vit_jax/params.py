"""A model's parameters as a flat dictionary, like PyTorch's ``state_dict``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_spec import Config, Parameter, VitportError, parameters


def get_params(model: nnx.Module) -> dict[str, jax.Array]:
    """The parameters by path, such as ``blocks/0/attn/qkv/kernel``; a model made by ``nnx.eval_shape`` gives shapes."""
    return {_path(parts): param.get_value() for parts, param in nnx.to_flat_state(nnx.state(model, nnx.Param))}


@lru_cache(maxsize=64)
def parameters_by_path(config: Config) -> Mapping[str, Parameter]:
    """What is known of each parameter that :func:`get_params` names."""
    return {parameter.path: parameter for parameter in parameters(config)}


def set_params(model: nnx.Module, params: Mapping[str, Any]) -> None:
    """Replaces every parameter of the model, in place.

    Args:
        model: may be abstract (``nnx.eval_shape``): afterwards it is real.
        params: an array for every path that :func:`get_params` names. Each is copied, and converted to the parameter's
            dtype.

    Raises:
        VitportError: if paths are missing, unknown, or of another shape; all of them are listed, nothing is changed.
    """
    state = nnx.state(model, nnx.Param)
    targets = {_path(parts): param for parts, param in nnx.to_flat_state(state)}
    _check({path: tuple(param.get_value().shape) for path, param in targets.items()}, params)
    for path, param in targets.items():
        # A copy: jnp.asarray may go on reading the caller's buffer, which can be a file mapped into memory.
        param.set_value(jnp.array(params[path], dtype=param.get_value().dtype, copy=True))
    nnx.update(model, state)


def _path(parts: tuple[Any, ...]) -> str:
    return "/".join(str(part) for part in parts)


def _check(shapes: dict[str, tuple[int, ...]], params: Mapping[str, Any]) -> None:
    faults = [f"{path} is missing" for path in shapes if path not in params]
    for path, array in params.items():
        if path not in shapes:
            near = difflib.get_close_matches(path, shapes, n=1)
            faults.append(f"{path} is unknown" + (f" (nearest: {near[0]})" if near else ""))
        elif tuple(array.shape) != shapes[path]:
            faults.append(f"{path} has shape {tuple(array.shape)} instead of {shapes[path]}")
    if faults:
        raise VitportError(f"The parameters do not fit the model: {'; '.join(faults)}.")
