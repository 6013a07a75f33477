"""Initial values of narrow models and of published recipes.

Oracles: each layer's formula for the standard deviation, within five standard errors; sines and cosines one by one.
"""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

import vit_jax
from vit_jax.training.run.init_schemes.vit import by_width, initialized, sincos2d
from vit_spec import ViTConfig, VitportError

pytestmark = pytest.mark.jax_alone

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=4, embed_dim=64, depth=1, num_heads=4, representation_size=32, num_classes=10
)


@pytest.fixture(scope="module")
def params() -> dict[str, jax.Array]:
    return vit_jax.get_params(vit_jax.create_model(CONFIG))


def _deviates(array: jax.Array) -> float:
    """Standard errors of a normal sample's deviation; uniform samples have smaller ones."""
    return 5 / math.sqrt(2 * array.size)


def test_narrow_models_begin_with_layers_that_keep_the_variance(params) -> None:
    kernel = np.asarray(by_width(params)["blocks/0/mlp/fc1/kernel"])
    assert abs(kernel.std() * math.sqrt(64) - 1) < _deviates(kernel)
    for path in ("head/bias", "norm/scale", "patch_embed/proj/kernel"):
        np.testing.assert_array_equal(by_width(params)[path], params[path])


@pytest.mark.parametrize(
    ("name", "deviations"),
    [
        (
            "deit",  # trunc_normal_ of 0.02; PyTorch's convolution within 1 / sqrt(16 * 3)
            {
                "blocks/0/attn/qkv": 0.02, "blocks/0/mlp/fc2": 0.02, "head": 0.02,
                "patch_embed/proj": 1 / math.sqrt(3 * 48),
            },
        ),
        (
            "big_vision",  # Glorot: sqrt(2 / (in + out)), of queries, keys and values apart; LeCun: sqrt(1 / in)
            {
                "blocks/0/attn/qkv": math.sqrt(2 / 128), "blocks/0/mlp/fc1": math.sqrt(2 / 320), "head": 0.0,
                "pre_logits/fc": math.sqrt(1 / 64), "patch_embed/proj": math.sqrt(1 / 48),
            },
        ),
    ],
)  # fmt: skip
def test_published_initial_values_have_their_deviations(name, deviations, params) -> None:
    found = initialized(params, name, "learned", CONFIG, jax.random.key(0))
    assert found.keys() == params.keys()
    for layer, deviation in deviations.items():
        kernel = np.asarray(found[f"{layer}/kernel"])
        assert abs(kernel.std() - deviation) <= deviation * _deviates(kernel), layer
        assert abs(kernel.mean()) <= 5 * deviation / math.sqrt(kernel.size), layer
    if name == "deit":
        bias = np.asarray(found["patch_embed/proj/bias"])
        assert 0.8 / math.sqrt(48) < np.abs(bias).max() <= 1 / math.sqrt(48)  # of 64 uniform draws: 0.8**64 = 6e-7
    again = initialized(params, name, "learned", CONFIG, jax.random.key(1))
    assert (again["patch_embed/proj/kernel"] != found["patch_embed/proj/kernel"]).any()


def test_fixed_positions_are_sines_and_cosines_of_column_and_row(params) -> None:
    """Measured: 3e-8 of values up to 1. The class token's row is 0."""
    table = np.asarray(initialized(params, "vit", "sincos2d", CONFIG, jax.random.key(0))["pos_embed"])
    assert table.shape == params["pos_embed"].shape == (1, 7, 64)
    assert not table[0, 0].any()
    for row in range(2):
        for column in range(3):
            for at in range(16):
                rate = 10_000.0 ** (-at / 15)
                angles = (math.sin(column * rate), math.cos(column * rate), math.sin(row * rate), math.cos(row * rate))
                found = table[0, 1 + row * 3 + column, at::16]
                np.testing.assert_allclose(found, angles, atol=1e-6)


@pytest.mark.parametrize("changes", [{"embed_dim": 66, "num_heads": 3}, {"embed_dim": 4}, {"pos_embed": "none"}])
def test_positions_that_do_not_fit_are_one_sentence(changes) -> None:
    with pytest.raises(VitportError, match="choose learned"):
        sincos2d(CONFIG.replace(**changes))
