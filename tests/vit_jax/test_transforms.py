"""The model under JAX's transformations: the oracle is the plain call of the same model."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.random_weights import random_images, random_params
from tests.small_configs import BASE
from tests.vit_jax.models import jax_model, nhwc, quick_jit
from vit_jax import VisionTransformer

pytestmark = pytest.mark.jax_alone

CONFIG = BASE.replace(layer_scale=1.0, drop_rate=0.2, attn_drop_rate=0.2, drop_path_rate=0.2)
ATOL = 1e-5  # compiled together, operations round in another order; logits of order 1 and u = 6e-8. Measured 4.8e-7


def model_and_images(seed: int = 0) -> tuple[VisionTransformer, jax.Array]:
    model = jax_model(CONFIG, random_params(CONFIG, seed), "float32")
    model.eval()
    return model, nhwc(random_images(CONFIG, 3, seed), "float32")


@cache
def plain_call() -> jax.Array:
    model, images = model_and_images()
    result = model(images)
    assert isinstance(result, jax.Array)
    return result


def assert_close(actual: jax.Array, expected: jax.Array):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=ATOL)


def test_split_and_merge_give_the_same_model():
    model, images = model_and_images()
    merged = nnx.merge(*nnx.split(model))
    assert merged.config == CONFIG
    assert jnp.array_equal(merged(images), plain_call())


def test_two_models_of_one_config_have_equal_structure():
    """Otherwise every new model would be compiled again."""
    (first, _), (second, _) = model_and_images(0), model_and_images(1)
    assert nnx.split(first)[0] == nnx.split(second)[0]
    assert hash(nnx.split(first)[0]) == hash(nnx.split(second)[0])


def test_jit_agrees_with_no_jit():
    model, images = model_and_images()
    graphdef, state = nnx.split(model)
    assert_close(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, images), plain_call())


def test_nnx_jit_agrees_with_no_jit():
    model, images = model_and_images()
    assert_close(nnx.jit(lambda model, x: model(x))(model, images), plain_call())


def test_vmap_over_pictures_agrees():
    model, images = model_and_images()
    assert_close(quick_jit(jax.vmap(lambda image: model(image[None])[0]))(images), plain_call())


def test_vmap_over_stacked_models_agrees():
    models = [model_and_images(seed)[0] for seed in (0, 1)]
    images = model_and_images()[1]
    graphdef, _ = nnx.split(models[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(nnx.split(model)[1] for model in models))
    actual = quick_jit(jax.vmap(lambda state: nnx.merge(graphdef, state)(images)))(stacked)
    assert_close(actual, jnp.stack([plain_call(), models[1](images)]))
    assert abs(actual[0] - actual[1]).max() > 0.1


def test_grad_through_nnx_agrees_with_a_finite_difference():
    """Oracle: the central difference in float64 along a random direction; its error is of order h**2 = 1e-8."""
    with jax.enable_x64(True):
        model = jax_model(CONFIG, random_params(CONFIG, 0))
        model.eval()
        images = nhwc(random_images(CONFIG, 1, 0))
        graphdef, state = nnx.split(model)
        loss = nnx.grad(lambda model: model(images).sum())
        gradient = quick_jit(lambda state: loss(nnx.merge(graphdef, state)))(state)
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape) / 50, state)

        @quick_jit
        def along(h: float) -> jax.Array:
            return nnx.merge(graphdef, jax.tree.map(lambda leaf, d: leaf + h * d, state, direction))(images).sum()

        slope = (along(1e-4) - along(-1e-4)) / 2e-4
        products = jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-6)


def train(model: VisionTransformer, images: jax.Array, key: jax.Array) -> jax.Array:
    result = model(images, rngs=nnx.Rngs(dropout=key))
    assert isinstance(result, jax.Array)
    return result


def test_training_forward_depends_on_its_key_alone_under_both_kinds_of_jit():
    model, images = model_and_images()
    model.train()
    graphdef, state = nnx.split(model)
    with_jax = quick_jit(lambda state, key: train(nnx.merge(graphdef, state), images, key))
    with_nnx = nnx.jit(train)
    first = with_jax(state, jax.random.key(3))
    assert jnp.array_equal(with_jax(state, jax.random.key(3)), first)
    assert_close(with_nnx(model, images, jax.random.key(3)), first)
    assert abs(with_jax(state, jax.random.key(4)) - first).max() > 0.01


def test_train_step_with_nnx_leaves_parameters_only():
    """Gradient descent through ``nnx.value_and_grad``: the loss falls, the state keeps its structure."""
    config = BASE.replace(depth=1, drop_rate=0.1)
    model = jax_model(config, random_params(config, 0), "float32")
    images = nhwc(random_images(config, 3, 0), "float32")

    @nnx.jit
    def step(model: VisionTransformer, key: jax.Array) -> jax.Array:
        value, gradient = nnx.value_and_grad(lambda model: (train(model, images, key) ** 2).mean())(model)
        nnx.update(model, jax.tree.map(lambda p, g: p - 0.01 * g, nnx.state(model, nnx.Param), gradient))
        return value

    structure = jax.tree.structure(nnx.state(model))
    losses = [step(model, jax.random.key(0)) for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]
    assert jax.tree.structure(nnx.state(model)) == structure
