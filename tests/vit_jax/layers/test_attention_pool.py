from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import numpy_reference
from tests.small_configs import CONFIGS
from tests.vit_jax.models import quick_jit, randomize
from vit_jax import AttentionPool, Init, make_norm

pytestmark = pytest.mark.jax_alone

CONFIG = CONFIGS["map"]


def test_pool_is_the_published_formula():
    """Oracle: numpy float64, head by head."""
    x = np.random.default_rng(1).standard_normal((2, 5, CONFIG.embed_dim))
    with jax.enable_x64(True):
        init = Init(nnx.Rngs(0), jnp.float64, jnp.float64)
        layer = AttentionPool(
            CONFIG.embed_dim,
            CONFIG.num_heads,
            CONFIG.hidden_dim,
            lambda width: make_norm(CONFIG, width, init=init),
            CONFIG.activation,
            init=init,
        )
        params = randomize(layer, "attn_pool")
        actual = np.asarray(quick_jit(layer)(jnp.asarray(x)))
    expected = np.stack([numpy_reference.attention_pool(CONFIG, params, tokens) for tokens in x])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)
