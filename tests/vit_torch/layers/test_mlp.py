from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import numpy_reference
from tests.small_configs import BASE
from tests.vit_torch.models import randomize
from vit_torch import Mlp, SwiGLU, SwiGLUPacked, make_norm

KINDS = {"plain": Mlp, "swiglu": SwiGLU, "swiglu_packed": SwiGLUPacked}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_mlp_is_the_published_formula(kind: str, with_norm: bool, bias: bool):
    """Oracle: numpy float64; the norm sits right before ``fc2``, the gate comes first."""
    config = BASE.replace(activation="silu")
    norm = (lambda width: make_norm(config, width)) if with_norm else None
    layer = KINDS[kind](config.embed_dim, config.hidden_dim, act="silu", bias=bias, norm=norm)
    params = randomize(layer, "mlp")
    x = np.random.default_rng(1).standard_normal((2, 5, config.embed_dim))
    expected = numpy_reference.mlp(config, params, "mlp", x, kind)
    np.testing.assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=1e-13)
    assert ("mlp.fc2.bias" in params) == bias


def test_defaults_are_erf_gelu_and_silu_gates():
    x = torch.tensor([1.5])
    assert Mlp(2, 3).act(x) == torch.nn.functional.gelu(x)
    assert SwiGLU(2, 3).act(x) == SwiGLUPacked(2, 3).act(x) == torch.nn.functional.silu(x)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_falls_on_hidden_and_output(kind: str):
    """Oracle: the definition; each dropout alone, at a rate that would be seen."""
    torch.manual_seed(0)
    layer = KINDS[kind](8, 30, drop=0.5)
    seen: dict[str, torch.Tensor] = {}
    for name in ("drop1", "drop2"):
        getattr(layer, name).register_forward_hook(lambda module, args, result, name=name: seen.update({name: result}))
    layer(torch.randn(20, 8))
    assert seen["drop1"].shape == (20, 30)
    assert seen["drop2"].shape == (20, 8)
    assert all(0.3 < (dropped == 0).double().mean() < 0.7 for dropped in seen.values())
