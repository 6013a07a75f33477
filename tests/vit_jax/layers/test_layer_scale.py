from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vit_jax import Init, LayerScale, set_params

pytestmark = pytest.mark.jax_alone


def test_layer_scale_multiplies_each_channel():
    layer = LayerScale(3, 0.5, init=Init(nnx.Rngs(0)))
    x = jnp.arange(12.0).reshape(2, 2, 3)
    assert jnp.array_equal(layer(x), 0.5 * x)
    set_params(layer, {"gamma": np.array([1.0, 10.0, 100.0])})
    assert layer(jnp.ones((1, 3))).tolist() == [[1.0, 10.0, 100.0]]


def test_product_is_in_the_computations_dtype():
    assert LayerScale(3, init=Init(nnx.Rngs(0), jnp.bfloat16))(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16
