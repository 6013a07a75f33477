"""Models whose every number is different, so that a swap, a transpose or a permutation cannot hide."""

from __future__ import annotations

import numpy as np

from conversion import Checkpoint
from vit_spec import Preprocessing, ViTConfig, parameters

ASYMMETRIC = ViTConfig(
    image_size=(12, 20),
    patch_size=4,
    in_channels=3,
    num_classes=7,
    embed_dim=24,
    depth=11,
    num_heads=3,
    mlp_hidden_dim=40,
    qkv_bias=True,
    representation_size=10,
)
"""Nothing square that could be something else, and blocks whose numbers sort otherwise as text."""


def canary_params(config: ViTConfig, dtype: type | np.dtype = np.float32) -> dict[str, np.ndarray]:
    """Every scalar of the model numbered from one end to the other, modulo what the dtype can count."""
    countable = 251 if np.dtype(dtype).itemsize == 2 else 2**24 - 3
    start = 0
    params: dict[str, np.ndarray] = {}
    for parameter in parameters(config):
        numbers = np.arange(start, start + parameter.size, dtype=np.float64)
        params[parameter.name] = (numbers % countable).reshape(parameter.shape).astype(dtype)
        start += parameter.size
    return params


def canary_checkpoint(config: ViTConfig = ASYMMETRIC, dtype: type | np.dtype = np.float32) -> Checkpoint:
    """A checkpoint of canaries whose preprocessing and labels are not the defaults."""
    preprocessing = Preprocessing(size=config.image_size, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize="squash")
    return Checkpoint.of(config, canary_params(config, dtype), preprocessing, tuple(f"class {k}" for k in range(7)))


def assert_same_tensors(actual, expected) -> None:
    """Names, shapes, dtypes and bits are equal."""
    assert set(actual) == set(expected)
    for name in expected:
        assert actual[name].dtype == expected[name].dtype, name
        assert actual[name].shape == expected[name].shape, name
        assert actual[name].tobytes() == np.ascontiguousarray(expected[name]).tobytes(), name
