"""LAMB and Muon against their papers in numpy, float32. Oracles: You et al. 2020, algorithm 2; Jordan et al. 2024."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax import training
from vit_jax.training.recipe.presets import PRESETS
from vit_spec import ViTConfig

pytestmark = pytest.mark.jax_alone

RATE = 1e-2


CONSTANT = training.Schedule("constant", peak=RATE)


def _updates(
    options: training.Optimizer, params: dict, gradients: list[dict], schedule: training.Schedule = CONSTANT
) -> list[dict]:
    """What is added to parameters that stay where they are, step by step."""
    params = {path: jnp.asarray(array, jnp.float32) for path, array in params.items()}
    optimizer = training.make_optimizer(options, training.make_schedule(schedule, 20_000), ViTConfig(depth=1))
    state, found = optimizer.init(params), []
    for gradient in gradients:
        given = {path: jnp.asarray(array, jnp.float32) for path, array in gradient.items()}
        updates, state = optimizer.update(given, state, params)
        found.append({path: np.asarray(array) for path, array in updates.items()})
    return found


def _case(shapes: dict[str, tuple[int, ...]]) -> tuple[dict, list[dict]]:
    rng = np.random.default_rng(0)
    params = {path: rng.standard_normal(shape) for path, shape in shapes.items()}
    return params, [{path: rng.standard_normal(shape) for path, shape in shapes.items()} for _ in range(3)]


def test_lamb_is_its_algorithm() -> None:
    """Measured: 4e-7 relative."""
    params, gradients = _case({"blocks/0/mlp/fc1/kernel": (6, 5), "blocks/0/mlp/fc1/bias": (5,)})
    options = training.Optimizer("lamb", beta1=0.8, beta2=0.9, epsilon=1e-6, weight_decay=0.3)
    found = _updates(options, params, gradients)
    for path, x in params.items():
        m, v = np.zeros_like(x), np.zeros_like(x)
        for step, gradient in enumerate(gradients, start=1):
            g = gradient[path]
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
            r = (m / (1 - 0.8**step)) / (np.sqrt(v / (1 - 0.9**step)) + 1e-6)
            ratio = 1.0  # of what is not decayed, as NVIDIA's and timm's have it
            if path.endswith("kernel"):
                r += 0.3 * x
                ratio = np.linalg.norm(x) / np.linalg.norm(r)
            expected = -RATE * ratio * r
            np.testing.assert_allclose(found[step - 1][path], expected, rtol=5e-6, atol=1e-8)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_muon_steps_along_nearly_orthogonal_matrices_in_the_blocks_alone(shape) -> None:
    """Five Newton-Schulz iterations of the momentum, Nesterov's form, which is what the paper's code does.

    Measured: 2e-6 of updates of order 1e-2.
    """
    params, gradients = _case({"blocks/0/mlp/fc1/kernel": shape, "head/kernel": (5, 4), "blocks/0/norm1/scale": (6,)})
    options = training.Optimizer("muon", beta1=0.9, beta2=0.99, epsilon=1e-8, weight_decay=0.0)
    found = _updates(options, params, gradients)
    m = np.zeros(shape)
    for step, gradient in enumerate(gradients, start=1):
        g = gradient["blocks/0/mlp/fc1/kernel"]
        m = 0.9 * m + 0.1 * g
        # Nesterov: the next momentum's bias is corrected one step ahead, the gradient's at this step.
        ahead = 0.9 * m / (1 - 0.9 ** (step + 1)) + 0.1 * g / (1 - 0.9**step)
        x = ahead.T if shape[0] > shape[1] else ahead
        x = x / np.linalg.norm(x)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        x = x.T if shape[0] > shape[1] else x
        singular = np.linalg.svd(x, compute_uv=False)
        assert 0.6 < singular.min() <= singular.max() < 1.3
        expected = -RATE * np.sqrt(max(1.0, shape[1] / shape[0])) * x
        np.testing.assert_allclose(found[step - 1]["blocks/0/mlp/fc1/kernel"], expected, atol=2e-5)
    m, v = np.zeros((5, 4)), np.zeros((5, 4))
    for step, gradient in enumerate(gradients, start=1):  # the head goes by Adam
        m, v = 0.9 * m + 0.1 * gradient["head/kernel"], 0.99 * v + 0.01 * gradient["head/kernel"] ** 2
        expected = -RATE * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
        np.testing.assert_allclose(found[step - 1]["head/kernel"], expected, rtol=2e-5, atol=1e-7)


def test_big_visions_preset_takes_big_visions_steps() -> None:
    """Oracle: its chain in optax: clip, Adam, times the learning rate, decay of 1e-4, times a schedule that peaks at 1.

    Both schedules are 1 - (1 - 1e-4) in float32 at their second step, which rounds by up to 6e-4 of it. Measured:
    1.6e-4 relative; without the decay it would be 1e-1.
    """
    recipe = PRESETS["big_vision_s16_90ep"].config.recipe
    params, gradients = _case({"blocks/0/mlp/fc1/kernel": (6, 5), "blocks/0/mlp/fc1/bias": (5,), "pos_embed": (1, 4)})
    trained = {path: jnp.asarray(array, jnp.float32) for path, array in params.items() if path != "pos_embed"}
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        optax.scale(1e-3),
        optax.add_decayed_weights(1e-4, {path: path.endswith("kernel") for path in trained}),
        optax.scale_by_schedule(optax.linear_schedule(0.0, 1.0, 10_000)),
        optax.scale(-1.0),
    )
    state, expected = theirs.init(trained), []
    for gradient in gradients:
        updates, state = theirs.update(
            {path: jnp.asarray(gradient[path], jnp.float32) for path in trained}, state, trained
        )
        expected.append(updates)
    found = _updates(recipe.optimizer, params, gradients, recipe.schedule)
    for mine, other in zip(found, expected, strict=True):
        assert not mine["pos_embed"].any()
        for path, update in other.items():
            np.testing.assert_allclose(mine[path], update, rtol=1.2e-3)
    assert np.abs(found[-1]["blocks/0/mlp/fc1/kernel"]).max() > 1e-7


def test_deit_iiis_preset_is_lamb_on_the_mean_over_classes() -> None:
    """A sum over 1,000 classes, clipped and kept from 0 a thousand times higher. Oracle: theirs, on the mean."""
    options = PRESETS["deit3_s"].config.recipe.optimizer
    params, gradients = _case({"blocks/0/mlp/fc1/kernel": (6, 5), "blocks/0/mlp/fc1/bias": (5,)})
    small = [{path: array * scale for path, array in gradients[0].items()} for scale in (1e-7, 1.0, 1e-3)]
    large = [{path: array * 1000 for path, array in gradient.items()} for gradient in small]
    theirs = dataclasses.replace(options, clip_norm=1.0, epsilon=1e-8)
    for mine, other in zip(_updates(options, params, large), _updates(theirs, params, small), strict=True):
        for path, update in other.items():
            np.testing.assert_allclose(mine[path], update, rtol=1e-5)
