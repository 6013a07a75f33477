from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vit_jax.layers.initialization import Init, make_linear, make_patch_conv, make_tokens

pytestmark = pytest.mark.jax_alone


def assert_normal(values: nnx.Param, std: float):
    """Oracle: the normal distribution; 4 standard errors of mean, deviation and kurtosis."""
    x = np.asarray(values.get_value(), np.float64).ravel() / std
    assert abs(x.mean()) < 4 / math.sqrt(x.size)
    assert abs(x.std() - 1) < 4 / math.sqrt(2 * x.size)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / x.size)


def test_linear_starts_normal_with_deviation_0_01_and_zero_bias():
    layer = make_linear(200, 300, init=Init(nnx.Rngs(0)))
    assert_normal(layer.kernel, 0.01)
    assert layer.kernel.get_value().shape == (200, 300)
    assert layer.bias is not None
    assert not layer.bias.get_value().any()
    assert make_linear(2, 3, bias=False, init=Init(nnx.Rngs(0))).bias is None


def test_patch_convolution_starts_kaiming_normal_over_the_fan_out():
    """Oracle: He et al. 2015, equation 14: deviation sqrt(2 / (kernel height * kernel width * output channels))."""
    layer = make_patch_conv(3, 128, 8, init=Init(nnx.Rngs(0)))
    assert_normal(layer.kernel, math.sqrt(2 / (8 * 8 * 128)))
    assert layer.kernel.get_value().shape == (8, 8, 3, 128)
    assert layer.bias is not None
    assert not layer.bias.get_value().any()


def test_tokens_start_normal_with_deviation_0_02():
    assert_normal(make_tokens(200, 300, init=Init(nnx.Rngs(0))), 0.02)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_parameters_are_made_in_param_dtype(dtype: str):
    layer = make_linear(2, 3, init=Init(nnx.Rngs(0), jnp.float32, dtype))
    tokens = make_tokens(1, 4, init=Init(nnx.Rngs(0), jnp.float32, dtype))
    assert layer.bias is not None
    assert layer.kernel.get_value().dtype == layer.bias.get_value().dtype == tokens.get_value().dtype == dtype
