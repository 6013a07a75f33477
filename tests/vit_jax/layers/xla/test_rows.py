from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.vit_jax.models import quick_jit
from vit_jax.layers.xla.rows import add, as_rows
from vit_jax.training import Forward
from vit_spec import ViTConfig

pytestmark = pytest.mark.jax_alone


def instructions(depth: int) -> int:
    """Of the compiled gradient of a model, those inside its fusions counted."""
    config = ViTConfig(image_size=8, patch_size=4, num_classes=2, embed_dim=8, depth=depth, num_heads=2)
    model = vit_jax.create_model(config)
    forward = Forward(model)
    gradient = quick_jit(jax.grad(lambda params, images: forward(params, images, None).sum()))
    program = gradient.lower(vit_jax.get_params(model), jnp.zeros((3, 8, 8, 3))).compile()
    return program.as_text().count(" = ")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="rows are for XLA's CPU compiler")
def test_the_backward_pass_grows_with_the_depth_and_not_with_its_square():
    """Four blocks more cost as much after six as after two. Measured 2664 and 2664 instructions; of tokens (B, N, D)
    9921 and 15682, where every block sums the gradients of all later blocks again."""
    two, six, ten = (instructions(depth) for depth in (2, 6, 10))
    assert ten - six < 1.1 * (six - two)


def test_rows_and_sums_keep_every_value():
    x, y = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(as_rows(jnp.asarray(x))).reshape(-1, 4), x.reshape(-1, 4))
    np.testing.assert_array_equal(add(jnp.asarray(x), jnp.asarray(y)), x + y)


def test_elsewhere_than_on_a_cpu_tokens_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert as_rows(jnp.zeros((3, 5, 4))).shape == (3, 5, 4)


def test_other_axes_than_tokens_stay_as_they_are():
    """Heads may be cut among devices, and images too: one axis of both could not be."""
    assert as_rows(jnp.zeros((3, 2, 5, 4))).shape == (3, 2, 5, 4)
