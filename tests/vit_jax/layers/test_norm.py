from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import numpy_reference
from tests.vit_jax.models import quick_jit, randomize
from vit_jax import Init, get_params, make_norm
from vit_spec import ViTConfig

pytestmark = pytest.mark.jax_alone


@pytest.mark.parametrize("eps", [1e-6, 0.1])
@pytest.mark.parametrize(("kind", "bias"), [("layernorm", True), ("layernorm", False), ("rmsnorm", False)])
def test_norm_is_the_published_formula(kind: str, bias: bool, eps: float):
    """Oracle: the formula in numpy float64, on inputs whose mean is far from zero and of tiny variance as well."""
    config = ViTConfig().replace(norm=kind, norm_bias=bias, norm_eps=eps)
    x = np.random.default_rng(0).standard_normal((3, 10)) * np.array([[1.0], [1e-3], [100.0]]) + [[3.0], [0.0], [1e3]]
    with jax.enable_x64(True):
        layer = make_norm(config, 10, init=Init(nnx.Rngs(0), jnp.float64, jnp.float64))
        params = randomize(layer, "norm")
        actual = np.asarray(quick_jit(layer)(jnp.asarray(x)))
    np.testing.assert_allclose(actual, numpy_reference.norm(config, params, "norm", x), rtol=0, atol=1e-12)
    assert ("norm.bias" in params) == bias


def test_norm_starts_as_one_and_zero_with_epsilon_1e_6():
    layer = make_norm(ViTConfig(), 4, init=Init(nnx.Rngs(0)))
    assert layer.epsilon == 1e-6
    assert {path: array.tolist() for path, array in get_params(layer).items()} == {
        "scale": [1.0] * 4,
        "bias": [0.0] * 4,
    }


def test_variance_survives_a_mean_far_from_zero():
    """Oracle: numpy float64. Values 1000 ± 0.1: the mean square less the squared mean would leave no digit of 0.01.

    float32 holds the values to 3e-5, so the normalised values, of order 1, to 3e-4.
    """
    x = (1000 + 0.1 * np.random.default_rng(0).standard_normal((4, 64))).astype(np.float32)
    layer = make_norm(ViTConfig(), 64, init=Init(nnx.Rngs(0)))
    expected = (x.astype(np.float64) - x.mean(-1, keepdims=True, dtype=np.float64)) / x.std(
        -1, keepdims=True, dtype=np.float64
    )
    np.testing.assert_allclose(np.asarray(layer(x)), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("kind", "bias"), [("layernorm", True), ("rmsnorm", False)])
def test_statistics_are_in_float32_for_bfloat16_inputs(kind: str, bias: bool):
    """Oracle: numpy float64 on the same bfloat16 values; the result is rounded to bfloat16 once, 2**-8 relative.

    A sum of 4096 squares in bfloat16 would stop growing at 256.
    """
    config = ViTConfig().replace(norm=kind, norm_bias=bias)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4096)), jnp.bfloat16)
    layer = make_norm(config, 4096, init=Init(nnx.Rngs(0), jnp.bfloat16))
    actual = layer(x)
    assert actual.dtype == jnp.bfloat16
    exact = numpy_reference.norm(config, {"norm.weight": np.ones(4096)}, "norm", np.asarray(x, np.float64))
    np.testing.assert_allclose(np.asarray(actual, np.float64), exact, rtol=2**-8, atol=1e-6)
