from __future__ import annotations

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vit_jax
from tests import numpy_reference
from tests.small_configs import BASE
from tests.vit_jax.models import quick_jit, randomize
from vit_jax import Attention, Init, attend_cudnn, attend_flash, attend_fused, make_norm, set_attention, set_params
from vit_jax.layers.attention import attend
from vit_jax.layers.xla.attention import softmax
from vit_spec import ViTConfig, VitportError

pytestmark = pytest.mark.jax_alone


def make(config: ViTConfig) -> Attention:
    init = Init(nnx.Rngs(0), jnp.float64, jnp.float64)

    def norm(width: int) -> nnx.Module:
        return make_norm(config, width, init=init)

    return Attention(
        config.embed_dim,
        config.num_heads,
        qkv_bias=config.qkv_bias,
        qk_scale=config.qk_scale,
        proj_bias=config.proj_bias,
        qk_norm=norm if config.qk_norm else None,
        attn_norm=norm if config.attn_norm else None,
        init=init,
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
    x = np.random.default_rng(1).standard_normal((2, 5, config.embed_dim))
    with jax.enable_x64(True):
        layer = make(config)
        params = randomize(layer, "attn")
        actual = np.asarray(quick_jit(layer)(jnp.asarray(x)))
    expected = np.stack([numpy_reference.attention(config, params, "attn", tokens) for tokens in x])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


def test_fused_attention_is_the_published_formula_and_has_the_explicit_ones_gradients():
    """Oracles: numpy float64, head by head; the gradients of the explicit attention."""
    x = np.random.default_rng(1).standard_normal((2, 5, BASE.embed_dim))
    with jax.enable_x64(True):
        layer = make(BASE)
        params = randomize(layer, "attn")
        slope = jax.grad(lambda x: (layer(x) ** 3).sum())
        explicit = np.asarray(slope(jnp.asarray(x)))
        set_attention(layer, attend_fused)
        actual, gradient = np.asarray(layer(jnp.asarray(x))), np.asarray(slope(jnp.asarray(x)))
    expected = np.stack([numpy_reference.attention(BASE, params, "attn", tokens) for tokens in x])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(gradient, explicit, rtol=0, atol=1e-13 * np.abs(explicit).max())


def test_fused_attention_computes_products_in_bfloat16_both_ways():
    """Oracle: the explicit attention in float32, of the same values. What is rounded to 2**-9 of itself five times, and
    averages over 32 tokens, stays within 2**-7 of its largest; measured 2**-7.4, as the explicit one in bfloat16. No
    product takes float32."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 2, 32, 16), jnp.bfloat16)

    def loss(attention, *x):
        return (attention(*x, 0.25, lambda weights: weights).astype(jnp.float32) ** 2).sum()

    half = jax.grad(partial(loss, attend_fused), argnums=(0, 1, 2))
    exact = jax.grad(partial(loss, attend), argnums=(0, 1, 2))(*(x.astype(jnp.float32) for x in (q, k, v)))
    for found, expected in zip(half(q, k, v), exact, strict=True):
        limit = 2**-7 * float(jnp.abs(expected).max())
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=0, atol=limit)
    products = re.findall(r"dot_general[^\n]*: \(tensor<[\dx]*x(\w+)>", jax.jit(half).lower(q, k, v).as_text())
    assert set(products) == {"bf16"}


def test_fused_attention_does_not_overflow_where_logits_are_large():
    q = jnp.full((1, 1, 2, 4), 100.0)
    v = jnp.arange(8.0).reshape(1, 1, 2, 4)
    found = attend_fused(q, q, v, 1.0, lambda weights: weights)
    np.testing.assert_allclose(found, np.broadcast_to(np.arange(8).reshape(2, 4).mean(0), (1, 2, 4)))


def test_attention_that_drops_weights_stays_explicit():
    model = vit_jax.create_model(BASE.replace(attn_drop_rate=0.1))
    set_attention(model, attend_fused)
    assert all(block.attn.attend is attend for block in model.blocks)
    model = vit_jax.create_model(BASE)
    set_attention(model, attend_fused)
    assert all(block.attn.attend is attend_fused for block in model.blocks)


@pytest.mark.device
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN is on NVIDIA GPUs alone")
@pytest.mark.parametrize("with_bias", [False, True])
def test_cudnn_attention_is_the_fused_one(with_bias):
    """On an NVIDIA GPU in bfloat16: two results of order 1, each rounded to 2**-9 a few times. Not run yet."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 4, 197, 64), jnp.bfloat16)
    bias = jax.random.normal(jax.random.key(1), (1, 4, 1, 197), jnp.bfloat16) if with_bias else None
    found, expected = (
        attend(q, k, v, 64**-0.5, lambda weights: weights, bias) for attend in (attend_cudnn, attend_fused)
    )
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=0, atol=2**-6)


def outputs_and_gradients(attend, q, k, v, scale, bias):
    """Heads, and the gradients of their sum with random weights: of queries, keys, values, scale and bias."""
    weights = jnp.asarray(np.random.default_rng(3).standard_normal((*q.shape[:1], q.shape[2], q.shape[1] * 8)), q.dtype)

    def weighted(*parts):
        heads = attend(*parts[:3], parts[3] if len(parts) > 3 else scale, lambda weights: weights, *parts[4:])
        return (heads * weights).sum(), heads

    parts = [q, k, v]
    if bias is not None:
        parts += [jnp.asarray(scale), bias]
    (_, heads), gradients = jax.value_and_grad(weighted, range(len(parts)), has_aux=True)(*parts)
    return [heads, *gradients]


@pytest.mark.parametrize(
    ("scale", "bias", "tokens"),
    [(0.3, None, 5), ((1, 3, 1, 1), None, 6), (0.3, (2, 1, 0, 0), 5), ((1, 3, 1, 1), (1, 3, 1, 0), 5)],
)
def test_cudnn_is_given_what_the_fused_attention_takes(scale, bias, tokens, monkeypatch):
    """The layout, the padding, the scale and the bias for cuDNN, run by XLA, forward and backward. Oracle: the fused
    attention, in float32 with sums of 8 and 6 products of order 1, u = 6e-8; measured 6e-7 of the largest. cuDNN takes
    even lengths, a number for a scale, and a bias per query."""
    run = jax.nn.dot_product_attention

    def by_xla(q, k, v, *, bias, scale, implementation, **lengths):
        assert implementation == "cudnn"
        assert isinstance(scale, float)
        assert q.shape[1] == 6
        assert bias is None or bias.shape[2:] == (6, 6)
        told = {name: array.tolist() for name, array in lengths.items()}
        assert told == ({} if tokens == 6 else {"query_seq_lengths": [6, 6], "key_value_seq_lengths": [5, 5]})
        return run(q, k, v, bias=bias, scale=scale, implementation="xla", **lengths)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    rng = np.random.default_rng(0)
    q, k, v = jnp.asarray(rng.standard_normal((3, 2, 3, tokens, 8)), jnp.float32)
    if isinstance(scale, tuple):
        scale = jnp.asarray(rng.uniform(0.1, 0.9, scale), jnp.float32)
    if bias is not None:
        bias = jnp.asarray(rng.standard_normal([size or tokens for size in bias]), jnp.float32)
        scale = jnp.broadcast_to(scale, (1, 3, 1, 1))
    found, expected = (outputs_and_gradients(one, q, k, v, scale, bias) for one in (attend_cudnn, attend_fused))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * max(1, np.abs(other).max()))


def test_cudnn_is_given_lengths_that_are_mapped_as_its_tokens_are(monkeypatch):
    """JAX's rule for cuDNN under ``jax.vmap``, which training over data and FSDP uses, takes no others."""
    run, mapped = jax.nn.dot_product_attention, []

    def by_xla(q, k, v, *, bias, scale, implementation, **lengths):
        mapped.extend(isinstance(array, jax.core.Tracer) for array in lengths.values())
        return run(q, k, v, bias=bias, scale=scale, implementation="xla", **lengths)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    tokens = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 3, 5, 8)), jnp.float32)
    found = jax.vmap(lambda x: attend_cudnn(x, x, x, 0.3, lambda weights: weights))(tokens)
    assert mapped == [True, True]
    rows = tokens.reshape(4, 3, 5, 8)
    expected = attend_fused(rows, rows, rows, 0.3, lambda weights: weights)
    np.testing.assert_allclose(found.reshape(4, 5, 24), expected, rtol=0, atol=2e-6)  # as above; measured 3e-7


def test_flash_attention_is_the_fused_one():
    """JAX's kernel for TPUs, in Pallas's interpreter, padded to two blocks, forward and backward. Oracle: the fused
    attention, in float32; sums of 130 products of order 1, u = 6e-8; measured 5e-7 of the largest."""
    from jax.experimental.pallas import tpu as pltpu

    rng = np.random.default_rng(0)
    q, k, v = jnp.asarray(rng.standard_normal((3, 2, 1, 130, 8)), jnp.float32)
    bias = jnp.asarray(rng.standard_normal((1, 1, 130, 130)), jnp.float32)
    with pltpu.force_tpu_interpret_mode():
        found = outputs_and_gradients(attend_flash, q, k, v, 0.3, bias)
    for one, other in zip(found, outputs_and_gradients(attend_fused, q, k, v, 0.3, bias), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * max(1, np.abs(other).max()))


def test_defaults_are_no_qkv_bias_and_scale_by_head_width():
    layer = Attention(32, init=Init(nnx.Rngs(0)))
    assert layer.qkv.bias is None
    assert (layer.num_heads, layer.scale) == (8, 0.5)


def test_attention_dropout_falls_on_the_weights():
    """Oracle: with values that are all one and no projection, a token's output is the sum of its weights.

    Undropped that is 1. Dropped at 0.4 among N = 5 equal weights, it is a count of survivors over 5 * 0.6.
    """
    with jax.enable_x64(True):
        init = Init(nnx.Rngs(0), jnp.float64, jnp.float64)
        layer = Attention(2, 1, qkv_bias=True, attn_drop=0.4, init=init)
        qkv = {"qkv/kernel": np.zeros((2, 6)), "qkv/bias": np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0])}
        set_params(layer, qkv | {"proj/kernel": np.eye(2), "proj/bias": np.zeros(2)})
        x = jnp.zeros((2000, 5, 2), jnp.float64)
        sums = np.asarray(quick_jit(lambda x: layer(x, rngs=nnx.Rngs(dropout=0)))(x))
        layer.eval()
        assert np.array_equal(layer(x), np.ones_like(x))
    assert set(np.unique((sums * 5 * 0.6).round(9)).tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    # 10,000 sums with variance 5 * 0.6 * 0.4 / 3**2: 4 standard errors are 0.015.
    assert abs(sums.mean() - 1) < 0.015


def test_projection_dropout_falls_on_the_output():
    layer = Attention(8, 2, proj_drop=0.5, init=Init(nnx.Rngs(0)))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 8)), jnp.float32)
    trained = np.asarray(quick_jit(lambda x: layer(x, rngs=nnx.Rngs(dropout=0)))(x))
    layer.eval()
    kept = trained != 0
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(trained[kept], 2 * np.asarray(quick_jit(layer)(x))[kept], rtol=1e-5)


def test_softmax_is_in_float32_for_bfloat16_logits():
    """Oracle: numpy float64 on the same bfloat16 values; rounded once, 2**-8 relative.

    4096 terms added up in bfloat16 would stop at 256.
    """
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4096)), jnp.bfloat16)
    actual = softmax(logits)
    assert actual.dtype == jnp.bfloat16
    exact = numpy_reference.softmax(np.asarray(logits, np.float64))
    np.testing.assert_allclose(np.asarray(actual, np.float64), exact, rtol=2**-8)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(VitportError, match="dim=10 is not divisible by num_heads=4"):
        Attention(10, 4, init=Init(nnx.Rngs(0)))
