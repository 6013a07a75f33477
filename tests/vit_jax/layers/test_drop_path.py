from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vit_jax.layers.drop_path import DropPath, drop_path
from vit_spec import VitportError

pytestmark = pytest.mark.jax_alone

SAMPLES, RATE = 20_000, 0.3


def test_drop_path_drops_whole_samples_and_scales_the_others():
    """Oracle: the definition; each sample is all zero, or all divided by 0.7."""
    with jax.enable_x64(True):
        dropped = np.asarray(drop_path(jnp.ones((SAMPLES, 2, 3), jnp.float64), RATE, jax.random.key(0)))
    assert np.array_equal(dropped, np.broadcast_to(dropped[:, :1, :1], dropped.shape))
    assert set(np.unique(dropped).tolist()) == {0.0, 1 / 0.7}


def test_drop_path_drops_at_its_rate():
    """Oracle: the binomial distribution; 4 standard errors are 4 * sqrt(0.3 * 0.7 / 20000) = 0.013."""
    share = (drop_path(jnp.ones((SAMPLES, 1)), RATE, jax.random.key(1)) == 0).mean()
    assert abs(share - RATE) < 0.013


def test_drop_path_keeps_the_expectation():
    """4 standard errors of the mean of a kept-or-dropped one are 4 * sqrt(0.3 / 0.7 / 20000) = 0.0185."""
    assert abs(drop_path(jnp.ones((SAMPLES, 1)), RATE, jax.random.key(2)).mean() - 1) < 0.0185


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_drop_path_keeps_the_dtype(dtype: str):
    assert drop_path(jnp.ones((4, 2), dtype), RATE, jax.random.key(0)).dtype == dtype


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_drop_path_is_the_identity_in_evaluation_and_at_rate_zero(rate: float, training: bool):
    layer = DropPath(rate)
    layer.train() if training else layer.eval()
    x = jnp.ones((50, 3))
    assert layer(x) is x


def test_drop_path_acts_in_training():
    assert (DropPath(0.5)(jnp.ones((50, 3)), rngs=nnx.Rngs(dropout=0)) == 0).any()


def test_training_without_random_numbers_is_refused():
    with pytest.raises(VitportError, match=r"needs rngs=nnx.Rngs\(dropout=key\)"):
        DropPath(0.5)(jnp.ones((2, 3)))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rate_is_refused(rate: float):
    with pytest.raises(VitportError, match=rf"DropPath's rate must be in \[0, 1\); got {rate}\."):
        DropPath(rate)
