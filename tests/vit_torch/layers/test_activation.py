from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.numpy_reference import ACTIVATIONS
from vit_spec import VitportError
from vit_torch.layers.activation import activation


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_the_published_formula(name: str):
    """Oracle: the formulas in numpy, with ``math.erf``. Measured 8.9e-16, one rounding at 6."""
    x = np.linspace(-6, 6, 241)
    np.testing.assert_allclose(activation(name)(torch.tensor(x)).numpy(), ACTIVATIONS[name](x), rtol=0, atol=4e-15)


def test_unknown_activation_is_refused_with_the_choices():
    with pytest.raises(VitportError, match="'swish' is unknown: choose one of gelu, gelu_tanh, quick_gelu, silu, relu"):
        activation("swish")
