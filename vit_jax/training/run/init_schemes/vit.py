"""Initialization schemes besides the model's own: for narrow models, and those of published recipes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from vit_jax.training.recipe.config import Initialization, Positions
from vit_spec import ViTConfig, VitportError
from vit_spec.vit.initialization import LINEAR_STD

_PATCHES = "patch_embed/proj/kernel"
_TEMPERATURE = 10_000.0


def initialized(
    params: Mapping[str, jax.Array], name: Initialization, positions: Positions, config: ViTConfig, key: jax.Array
) -> dict[str, jax.Array]:
    """The parameters of a new model, float32, initialized by the named scheme.

    Args:
        key: random values depend on it and on the parameter's path.

    Raises:
        VitportError: if the model cannot have these positions.
    """
    own = {"vit": dict, "width": by_width, "deit": lambda p: _deit(p, key), "big_vision": lambda p: _big_vision(p, key)}
    result = own[name](params)
    if positions == "sincos2d":
        result["pos_embed"] = jnp.asarray(sincos2d(config))
    return result


def check_scheme(name: Initialization, positions: Positions, config: ViTConfig) -> None:
    """Checks that the model can have these initial values.

    Raises:
        VitportError: if it cannot have these positions.
    """
    del name
    if positions == "sincos2d":
        sincos2d(config)


def by_width(params: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Linear layers that preserve the variance of their inputs.

    The usual standard deviations, 0.01 and 0.02, suit widths of hundreds; at a width of 32 the signal would vanish.
    """
    result = dict(params)
    for path, array in params.items():
        if path.endswith("/kernel") and path.startswith("blocks/"):
            result[path] = array / (LINEAR_STD * np.sqrt(array.shape[0]))
        elif path in ("cls_token", "pos_embed"):
            result[path] = array * 10
    return result


def _deit(params: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """Linear layers with standard deviation 0.02; patches as PyTorch initializes a convolution, kernel and bias uniform
    in ± 1 / sqrt(fan-in)."""
    patches = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    bias, shape = "patch_embed/proj/bias", params[_PATCHES].shape
    bound = math.prod(shape[:-1]) ** -0.5
    wide = {path: array * (0.02 / LINEAR_STD) for path, array in params.items() if path.endswith("/kernel")}
    drawn = {_PATCHES: patches(_own(key, _PATCHES), shape)}
    if bias in params:
        drawn[bias] = jax.random.uniform(_own(key, bias), params[bias].shape, minval=-bound, maxval=bound)
    return {**params, **wide, **drawn}


def _big_vision(params: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """Glorot & Bengio 2010 in the blocks, uniform, with queries, keys and values as separate layers; LeCun et al. 1998
    for patches and the layer before the head; zeros for the head. The biases of its MLPs, with standard deviation 1e-6,
    are 0 here."""
    glorot, lecun = initializers.glorot_uniform(), initializers.lecun_normal()
    result = dict(params)
    for path, array in params.items():
        own = _own(key, path)
        if path.endswith("qkv/kernel"):
            parts = (glorot(part, (array.shape[0], array.shape[1] // 3)) for part in jax.random.split(own, 3))
            result[path] = jnp.concatenate(list(parts), axis=1)
        elif path.startswith("blocks/") and path.endswith("/kernel"):
            result[path] = glorot(own, array.shape)
        elif path in (_PATCHES, "pre_logits/fc/kernel"):
            result[path] = lecun(own, array.shape)
        elif path in ("head/kernel", "cls_token"):
            result[path] = jnp.zeros_like(array)
    return result


def _own(key: jax.Array, path: str) -> jax.Array:
    return jax.random.fold_in(key, zlib.crc32(path.encode()))


def sincos2d(config: ViTConfig) -> np.ndarray:
    """(1, positions, D), float32: sines and cosines of column and row, a quarter of the width each.

    As in MoCo v3 (Chen et al. 2021) the frequencies fall from 1 to 1/10,000. Rows of prefix tokens are 0.

    Raises:
        VitportError: if the model has no position table, or a width that does not divide by 4.
    """
    D = config.embed_dim
    if config.pos_embed == "none" or D % 4 or D < 8:
        raise VitportError(
            f"model.positions=sincos2d needs a position table and an embed_dim that is a multiple of 4, at least 8; "
            f"got pos_embed={config.pos_embed!r} and embed_dim={D}: choose learned."
        )
    height, width = config.grid_size
    frequencies = _TEMPERATURE ** -(np.arange(D // 4) / (D // 4 - 1))
    y, x = (places.reshape(-1, 1) * frequencies for places in np.mgrid[:height, :width])
    patches = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    others = np.zeros((config.num_positioned_prefix_tokens, D))
    return np.concatenate([others, patches])[None].astype(np.float32)
