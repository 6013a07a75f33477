"""LAMB and Muon against their papers in numpy, float32. Oracles: You et al. 2020, algorithm 2; Jordan et al. 2024."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import training

RATE = 1e-2


def _updates(options: training.Optimizer, params: dict, gradients: list[dict]) -> list[dict]:
    """What is added to parameters that stay where they are, step by step."""
    schedule = training.make_schedule(training.Schedule("constant", peak=RATE), 10)
    params = {path: jnp.asarray(array, jnp.float32) for path, array in params.items()}
    optimizer = training.make_optimizer(options, schedule, params)
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
            r += 0.3 * x if path.endswith("kernel") else 0
            expected = -RATE * np.linalg.norm(x) / np.linalg.norm(r) * r
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
