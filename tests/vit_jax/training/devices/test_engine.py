"""Where a state lies between creation and the first step. Oracle: numpy's stack of the arrays that it was made of."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import vit_jax
from tests.vit_jax.training.runs import CONFIG, RECIPE
from vit_jax import training
from vit_spec import Preprocessing

pytestmark = pytest.mark.jax_alone


def test_blocks_are_stacked_one_parameter_at_a_time_and_what_they_were_made_of_is_freed() -> None:
    model = vit_jax.create_model(CONFIG)
    params = {path: np.array(array) for path, array in vit_jax.get_params(model).items()}
    optimizer = training.make_optimizer(RECIPE.optimizer, training.make_schedule(RECIPE.schedule, 2), CONFIG)
    mesh = training.make_mesh(training.MeshShape(), jax.devices()[:1])
    forward = training.Forward(model, scan=True)
    engine = training.jit_engine(forward, optimizer, RECIPE, Preprocessing(), mesh, jax.random.key(0))
    shapes = jax.eval_shape(lambda: training.init_state(params, optimizer, RECIPE))
    before = sum(leaf.nbytes for leaf in jax.live_arrays())
    made = jax.jit(lambda: training.init_state(params, optimizer, RECIPE), out_shardings=engine.layout(shapes))()
    blocks = [leaf for path, leaf in made.params.items() if path.startswith("blocks/")]
    placed = engine.place_state(made)
    assert blocks
    assert all(leaf.is_deleted() for leaf in blocks)
    kernel = np.stack([params[f"blocks/{at}/attn/qkv/kernel"] for at in range(CONFIG.depth)])
    np.testing.assert_array_equal(placed.params["blocks/*/attn/qkv/kernel"], kernel)
    np.testing.assert_array_equal(placed.ema["blocks/*/attn/qkv/kernel"], kernel)
    stacked = [leaf for path, leaf in placed.params.items() if path.startswith("blocks/")]
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(placed))
    for _ in range(2):
        fetched = engine.fetch(placed)
        assert sum(leaf.nbytes for leaf in jax.live_arrays()) < before + 1.1 * held
        for path, array in params.items():
            np.testing.assert_array_equal(fetched.params[path], array)
        assert all(leaf.is_deleted() for leaf in stacked)
        placed = engine.place_state(fetched)
        np.testing.assert_array_equal(placed.params["blocks/*/attn/qkv/kernel"], kernel)
