from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import numpy_reference
from tests.small_configs import BASE
from tests.vit_torch.models import randomize
from vit_spec import ViTConfig, VitportError
from vit_torch import Attention, attend_fused, create_model, make_norm, set_attention
from vit_torch.layers.attention import attend


def make(config: ViTConfig) -> Attention:
    def norm(width: int) -> torch.nn.Module:
        return make_norm(config, width)

    return Attention(
        config.embed_dim,
        config.num_heads,
        qkv_bias=config.qkv_bias,
        qk_scale=config.qk_scale,
        proj_bias=config.proj_bias,
        qk_norm=norm if config.qk_norm else None,
        attn_norm=norm if config.attn_norm else None,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qkv_bias": False, "proj_bias": False},
        {"qk_scale": 1.3},
        {"qk_norm": True},
        {"attn_norm": True},
        {"qk_norm": True, "attn_norm": True, "norm": "rmsnorm", "norm_bias": False},
    ],
)
def test_attention_is_the_published_formula(changes: dict):
    """Oracle: numpy float64, head by head."""
    config = BASE.replace(**changes)
    layer = make(config)
    params = randomize(layer, "attn")
    x = np.random.default_rng(1).standard_normal((2, 5, config.embed_dim))
    expected = np.stack([numpy_reference.attention(config, params, "attn", tokens) for tokens in x])
    np.testing.assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=1e-13)
    assert layer.head_dim == 8


def test_attention_matches_torch_multihead_attention():
    """Oracle: ``torch.nn.MultiheadAttention``, whose packed projection has the same rows."""
    layer, oracle = make(BASE), torch.nn.MultiheadAttention(BASE.embed_dim, BASE.num_heads, batch_first=True).double()
    params = randomize(layer, "attn")
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias", "out_proj.weight": "proj.weight"}
    names["out_proj.bias"] = "proj.bias"
    oracle.load_state_dict({theirs: torch.tensor(params[f"attn.{ours}"]) for theirs, ours in names.items()})
    x = torch.randn(2, 6, BASE.embed_dim, dtype=torch.float64)
    torch.testing.assert_close(layer(x), oracle(x, x, x, need_weights=False)[0], rtol=0, atol=1e-13)


def test_fused_attention_is_the_published_formula():
    """Oracle: numpy float64, head by head."""
    layer = make(BASE)
    params = randomize(layer, "attn")
    set_attention(layer, attend_fused)
    x = np.random.default_rng(1).standard_normal((2, 5, BASE.embed_dim))
    expected = np.stack([numpy_reference.attention(BASE, params, "attn", tokens) for tokens in x])
    np.testing.assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=1e-13)


def test_attention_that_drops_weights_stays_explicit():
    model = create_model(BASE.replace(attn_drop_rate=0.1))
    set_attention(model, attend_fused)
    assert all(block.attn.attend is attend for block in model.blocks)
    model = create_model(BASE)
    set_attention(model, attend_fused)
    assert all(block.attn.attend is attend_fused for block in model.blocks)


def test_defaults_are_no_qkv_bias_and_scale_by_head_width():
    layer = Attention(32)
    assert layer.qkv.bias is None
    assert (layer.num_heads, layer.scale) == (8, 0.5)


def test_attention_dropout_falls_on_the_weights():
    """Oracle: with values that are all one and no projection, a token's output is the sum of its weights.

    Undropped that is 1. Dropped at 0.4 among N = 5 equal weights, it is a count of survivors over 5 * 0.6.
    """
    torch.manual_seed(0)
    layer = Attention(2, 1, qkv_bias=True, attn_drop=0.4).double()
    with torch.no_grad():
        layer.qkv.weight.zero_()
        layer.qkv.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0]))
        layer.proj.weight.copy_(torch.eye(2))
    x = torch.zeros(2000, 5, 2, dtype=torch.float64)
    survivors = layer(x) * 5 * 0.6
    assert set(survivors.unique().round(decimals=9).tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    # 10,000 sums with variance 5 * 0.6 * 0.4 / 3**2: 4 standard errors are 0.015.
    assert abs(layer(x).mean().item() - 1) < 0.015
    assert torch.equal(layer.eval()(x), torch.ones_like(x))


def test_projection_dropout_falls_on_the_output():
    torch.manual_seed(0)
    layer = Attention(8, 2, proj_drop=0.5).double()
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    trained, evaluated = layer(x), layer.eval()(x)
    kept = trained != 0
    assert 0.2 < kept.double().mean() < 0.8
    torch.testing.assert_close(trained[kept], 2 * evaluated[kept])


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(VitportError, match="dim=10 is not divisible by num_heads=4"):
        Attention(10, 4)
