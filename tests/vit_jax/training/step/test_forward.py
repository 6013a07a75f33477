"""Rematerialisation and scan change what is stored and compiled, not what is computed. Oracle: the plain loop."""

from __future__ import annotations

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from vit_jax import training
from vit_jax.training.step import forward as step_forward
from vit_jax.training.step.stacked import stack
from vit_spec import Preprocessing, Segment, ViTConfig, VitportError, segments

pytestmark = pytest.mark.jax_alone

CONFIG = ViTConfig(
    image_size=8, patch_size=4, num_classes=5, embed_dim=16, depth=3, num_heads=2, layer_scale=0.5,
    drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def setting() -> tuple:
    model = vit_jax.create_model(CONFIG)
    rng = np.random.default_rng(0)
    params = {
        path: array + rng.normal(0, 0.2, array.shape).astype(np.float32)
        for path, array in vit_jax.get_params(model).items()
    }
    images = jnp.asarray(rng.standard_normal((6, 8, 8, 3)), jnp.float32)
    return model, params, images, jax.random.split(jax.random.key(1), 6)


@pytest.fixture(scope="module")
def expected(setting) -> tuple:
    """Loss and gradients of the plain loop."""
    return _results(setting, training.Forward(setting[0]))


def _results(setting: tuple, forward: training.Forward):
    _, params, images, keys = setting
    arranged = partial(stack, segments=segments(CONFIG)) if forward.scan else dict
    loss = jax.jit(jax.value_and_grad(lambda params: (forward(arranged(params), images, keys) ** 2).sum()))
    return loss(params)


@pytest.mark.parametrize(("remat", "scan"), [("none", True), ("full", False), ("dots", False), ("dots_no_batch", True)])
def test_remat_and_scan_give_the_loops_loss_and_gradients(remat, scan, setting, expected) -> None:
    """Measured: loss 2e-7 of it, gradients 4e-7 of their largest."""
    loss, gradients = expected
    other, found = _results(setting, training.Forward(setting[0], remat=remat, scan=scan))
    np.testing.assert_allclose(other, loss, rtol=2e-6)
    for path, gradient in gradients.items():
        np.testing.assert_allclose(found[path], gradient, rtol=0, atol=4e-6 * float(jnp.abs(gradient).max()))


def test_without_randomness_it_is_the_models_own_forward_pass() -> None:
    config = CONFIG.replace(drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)
    model = vit_jax.create_model(config)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 8, 3)), jnp.float32)
    for scan in (False, True):
        forward = training.Forward(model, scan=scan)
        params = vit_jax.get_params(model)
        found = forward(stack(params, segments(config)) if scan else params, images, None)
        np.testing.assert_allclose(found, model(images), atol=1e-6)


@pytest.mark.parametrize("scan", [False, True])
def test_blocks_that_alternate_are_run_in_turn(scan, monkeypatch) -> None:
    """Every second block differs, as in Swin. Oracle: the model's own forward pass; measured 0 and 1e-7."""
    config = CONFIG.replace(depth=4, drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)
    run = (Segment("blocks", 4, period=2),)
    monkeypatch.setattr(step_forward, "segments", lambda config: run)
    model = vit_jax.create_model(config)
    for block in model.blocks[1::2]:
        block.norm1.epsilon = 10.0
    images = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 8, 3)), jnp.float32)
    params = {path: 3 * array for path, array in vit_jax.get_params(model).items()}
    vit_jax.set_params(model, params)
    found = training.Forward(model, scan=scan)(stack(params, run) if scan else params, images, None)
    expected = model(images)
    np.testing.assert_allclose(found, expected, atol=1e-6 * float(jnp.abs(expected).max()))
    for block in model.blocks:
        block.norm1.epsilon = 10.0
    assert jnp.abs(model(images) - expected).max() > 1e-3 * jnp.abs(expected).max()


def test_stochastic_depth_leaves_out_by_its_own_blocks_rate() -> None:
    """The first block always acts, the last is left out for half of the images, and then changes nothing."""
    config = ViTConfig(image_size=4, patch_size=4, num_classes=0, embed_dim=8, depth=2, num_heads=1, drop_path_rate=0.5)
    model = vit_jax.create_model(config)
    params = vit_jax.get_params(model)
    params = {path: array * (30 if path.endswith("kernel") else 1) for path, array in params.items()}
    images = jnp.broadcast_to(
        jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 4, 3)), jnp.float32), (400, 4, 4, 3)
    )
    found = training.Forward(model, scan=True)(
        stack(params, segments(config)), images, jax.random.split(jax.random.key(0), 400)
    )
    kinds, counts = np.unique(np.asarray(found).round(4), axis=0, return_counts=True)
    assert len(kinds) == 4  # two branches of the last block, each there or not
    # binomial(400, 1/4): five standard deviations are 43
    assert all(abs(count - 100) < 43 for count in counts)


def test_scan_compiles_one_block_for_all(setting) -> None:
    def products(scan: bool) -> int:
        forward = training.Forward(setting[0], scan=scan)
        _, params, images, keys = setting
        params = stack(params, segments(CONFIG)) if scan else params
        text = jax.jit(lambda params: forward(params, images, keys)).lower(params).compile().as_text() or ""
        return len(re.findall('op_name="[^"]*dot_general"', text))

    assert products(scan=True) < products(scan=False) / 2


def test_remat_keeps_less_for_the_backward_pass(setting) -> None:
    def kept(remat: training.Remat) -> int:
        forward = training.Forward(setting[0], remat=remat)
        _, params, images, keys = setting
        _, residuals = jax.eval_shape(lambda params: jax.vjp(lambda p: forward(p, images, keys), params), params)
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    assert kept("full") < kept("dots_no_batch") < kept("dots") < kept("none")


def test_an_unknown_policy_is_one_sentence(setting) -> None:
    with pytest.raises(VitportError, match="remat='some' is unknown: choose one of auto, none, full"):
        training.Forward(setting[0], remat="some")  # type: ignore[arg-type]


def test_a_step_of_twelve_blocks_is_dispatched_in_three_milliseconds() -> None:
    """Width 8, so that nothing but dispatch counts; the least of 200, as others may be at work. Measured 1.1 ms."""
    import time

    config = ViTConfig(image_size=8, patch_size=4, num_classes=2, embed_dim=8, depth=12, num_heads=2)
    model, recipe = vit_jax.create_model(config), training.Recipe()
    params = vit_jax.get_params(model)
    optimizer = training.make_optimizer(recipe.optimizer, training.make_schedule(recipe.schedule, 300), config)
    mesh = training.make_mesh(training.MeshShape(), jax.devices()[:1])
    engine = training.jit_engine(training.Forward(model), optimizer, recipe, Preprocessing(), mesh, jax.random.key(0))
    state = engine.place_state(training.init_state(params, optimizer, recipe))
    batch = {"image": np.zeros((1, 8, 8, 3), np.uint8), "label": np.zeros(1, np.int32), "index": np.zeros(1, np.uint32)}
    placed = engine.place_batch(batch)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        state, _ = engine.step(state, placed)
        times.append(time.perf_counter() - start)
        jax.block_until_ready(state)
    assert min(times) < 3e-3
