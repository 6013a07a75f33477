from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import numpy_reference
from tests.small_configs import BASE, CONFIGS
from tests.vit_jax.models import quick_jit, randomize
from vit_jax import Block, Init
from vit_jax.vit.vision_transformer import BLOCKS

pytestmark = pytest.mark.jax_alone


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "swiglu",
        "swiglu-packed",
        "layer-scale",
        "qk-norm",
        "attn-norm",
        "post-norm",
        "original",
        "branches",
        "differential-norms",
    ],
)
def test_block_is_the_published_formula(name: str):
    """Oracle: numpy float64."""
    config = CONFIGS[name]
    x = np.random.default_rng(1).standard_normal((2, 5, config.embed_dim))
    with jax.enable_x64(True):
        block = BLOCKS[config.block](config, init=Init(nnx.Rngs(0), jnp.float64, jnp.float64))
        params = randomize(block, "blocks/0")
        actual = np.asarray(quick_jit(block)(jnp.asarray(x)))
    expected = np.stack([numpy_reference.block(config, params, "blocks.0", tokens) for tokens in x])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def test_both_branches_are_left_out_by_stochastic_depth():
    """Oracle: at rate 0.5, a quarter of the samples pass unchanged; 400 samples, 4 standard errors are 0.087."""
    block = Block(BASE, drop_path=0.5, init=Init(nnx.Rngs(0)))
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, 3, BASE.embed_dim)), (400, 3, BASE.embed_dim))
    result = np.asarray(quick_jit(lambda x: block(x, rngs=nnx.Rngs(dropout=0)))(x))
    unchanged = (result == np.asarray(x)).all((1, 2)).mean()
    assert abs(unchanged - 0.25) < 0.087
    assert len(np.unique(result.round(5), axis=0)) == 4


def test_rates_reach_their_modules():
    block = Block(BASE.replace(drop_rate=0.1, attn_drop_rate=0.2), drop_path=0.3, init=Init(nnx.Rngs(0)))
    dropouts = (block.attn.attn_drop, block.attn.proj_drop, block.mlp.drop1, block.mlp.drop2)
    assert [dropout.rate for dropout in dropouts] == [0.2, 0.1, 0.1, 0.1]
    assert block.drop_path1.rate == block.drop_path2.rate == 0.3
