from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import numpy_reference
from tests.vit_torch.models import randomize
from vit_spec import ViTConfig
from vit_torch import make_norm


@pytest.mark.parametrize("eps", [1e-6, 0.1])
@pytest.mark.parametrize(("kind", "bias"), [("layernorm", True), ("layernorm", False), ("rmsnorm", False)])
def test_norm_is_the_published_formula(kind: str, bias: bool, eps: float):
    """Oracle: the formula in numpy float64, on inputs whose mean is far from zero and of tiny variance as well."""
    config = ViTConfig().replace(norm=kind, norm_bias=bias, norm_eps=eps)
    layer = make_norm(config, 10)
    params = randomize(layer, "norm")
    x = np.random.default_rng(0).standard_normal((3, 10)) * np.array([[1.0], [1e-3], [100.0]]) + [[3.0], [0.0], [1e3]]
    expected = numpy_reference.norm(config, params, "norm", x)
    np.testing.assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=1e-12)
    assert ("norm.bias" in params) == bias


def test_norm_starts_as_one_and_zero_with_epsilon_1e_6():
    layer = make_norm(ViTConfig(), 4)
    assert isinstance(layer, torch.nn.LayerNorm)
    assert layer.eps == 1e-6
    assert layer.weight.tolist() == [1.0] * 4
    assert layer.bias.tolist() == [0.0] * 4
