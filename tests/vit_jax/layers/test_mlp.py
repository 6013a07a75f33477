from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import numpy_reference
from tests.small_configs import BASE
from tests.vit_jax.models import quick_jit, randomize
from vit_jax import Init, Mlp, SwiGLU, SwiGLUPacked, make_norm
from vit_jax.layers.dropout import Dropout

pytestmark = pytest.mark.jax_alone

KINDS = {"plain": Mlp, "swiglu": SwiGLU, "swiglu_packed": SwiGLUPacked}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_mlp_is_the_published_formula(kind: str, with_norm: bool, bias: bool):
    """Oracle: numpy float64; the norm sits right before ``fc2``, the gate comes first."""
    config = BASE.replace(activation="silu")
    x = np.random.default_rng(1).standard_normal((2, 5, config.embed_dim))
    with jax.enable_x64(True):
        init = Init(nnx.Rngs(0), jnp.float64, jnp.float64)
        norm = (lambda width: make_norm(config, width, init=init)) if with_norm else None
        layer = KINDS[kind](config.embed_dim, config.hidden_dim, act="silu", bias=bias, norm=norm, init=init)
        params = randomize(layer, "mlp")
        actual = np.asarray(quick_jit(layer)(jnp.asarray(x)))
    np.testing.assert_allclose(actual, numpy_reference.mlp(config, params, "mlp", x, kind), rtol=0, atol=1e-13)
    assert ("mlp.fc2.bias" in params) == bias


def test_defaults_are_erf_gelu_and_silu_gates():
    x = jnp.array([1.5])
    assert Mlp(2, 3, init=Init(nnx.Rngs(0))).act(x) == jax.nn.gelu(x, approximate=False) != jax.nn.gelu(x)
    assert SwiGLU(2, 3, init=Init(nnx.Rngs(0))).act(x) == jax.nn.silu(x)
    assert SwiGLUPacked(2, 3, init=Init(nnx.Rngs(0))).act(x) == jax.nn.silu(x)


class Seen(nnx.Module):
    """A dropout that notes what it gives."""

    def __init__(self, dropout: Dropout, results: list[jax.Array]) -> None:
        self.dropout = dropout
        self.note = results.append

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        self.note(self.dropout(x, rngs=rngs))
        return self.dropout(x, rngs=rngs)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_falls_on_hidden_and_output(kind: str):
    """Oracle: the definition; each dropout at a rate that would be seen."""
    layer = KINDS[kind](8, 30, drop=0.5, init=Init(nnx.Rngs(0)))
    hidden, output = [], []
    layer.drop1, layer.drop2 = Seen(layer.drop1, hidden), Seen(layer.drop2, output)
    layer(jax.random.normal(jax.random.key(0), (20, 8)), rngs=nnx.Rngs(dropout=0))
    assert hidden[0].shape == (20, 30)
    assert output[0].shape == (20, 8)
    assert all(0.3 < (dropped == 0).mean() < 0.7 for dropped in (hidden[0], output[0]))
