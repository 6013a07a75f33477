"""Schedules, losses, mixing and masks. Oracles: formulas in numpy."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.vit_jax.training.runs import CONFIG, RECIPE, batches, run, without
from vit_jax import training
from vit_jax.params import parameters_by_path
from vit_jax.training.devices.sharding import check_divides
from vit_jax.training.recipe.execution import MeshShape
from vit_jax.training.step import losses
from vit_spec import ViTConfig, VitportError

pytestmark = pytest.mark.jax_alone

STILL = CONFIG.replace(drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)
PLAIN = training.Recipe(schedule=training.Schedule(name="constant", peak=1e-3))
ONE = MeshShape()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            training.Schedule("cosine", peak=2.0, final=0.5, warmup=4),
            lambda s: 2 * s / 4 if s < 4 else 0.5 + 0.75 * (1 + math.cos(math.pi * (s - 4) / 16)),
        ),
        (training.Schedule("linear", peak=2.0, warmup=4), lambda s: 2 * s / 4 if s < 4 else 2 * (1 - (s - 4) / 16)),
        (
            training.Schedule("rsqrt", peak=2.0, warmup=4, cooldown=6, timescale=3),
            lambda s: 2 * s / 4 if s < 4 else _rsqrt(s - 4) if s < 14 else _rsqrt(10) * (1 - (s - 14) / 6),
        ),
        (training.Schedule("constant", peak=2.0, cooldown=10), lambda s: 2.0 if s < 10 else 2 * (1 - (s - 10) / 10)),
    ],
)
def test_schedules_are_their_formulas(options, expected) -> None:
    schedule = training.make_schedule(options, 20)
    found = [float(np.asarray(schedule(step))) for step in range(20)]
    np.testing.assert_allclose(found, [expected(step) for step in range(20)], rtol=1e-6, atol=1e-7)


def _rsqrt(step: int) -> float:
    return 2 * math.sqrt(3 / max(step, 3))


def test_a_schedule_that_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(VitportError, match="longer than the 10 steps"):
        training.make_schedule(training.Schedule("rsqrt", warmup=8, cooldown=8), 10)


def test_distillation_without_a_teacher_is_one_sentence() -> None:
    targets = jnp.ones((2, 5)) / 5
    with pytest.raises(VitportError, match="needs a teacher"):
        losses.total_loss(training.Loss(distillation="hard"), jnp.ones((2, 5)), targets, None)


def test_binary_targets_are_whole_wherever_a_class_has_a_share() -> None:
    """Oracle: PyTorch's formula of BCEWithLogitsLoss in numpy, summed over the classes."""
    logits = np.random.default_rng(0).standard_normal((3, 4))
    targets = np.array([[0.3, 0.7, 0, 0], [0, 0, 1, 0], [0, 0.01, 0, 0.99]])
    found = losses.classification_loss(training.Loss("sigmoid", binary=True), jnp.asarray(logits), jnp.asarray(targets))
    whole = targets > 0
    expected = (np.log1p(np.exp(-np.abs(logits))) + np.maximum(logits, 0) - logits * whole).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("options", [training.Loss(mixup=0.8), training.Loss(cutmix=1.0)])
def test_mixing_keeps_each_pixel_and_its_target_in_step(options) -> None:
    """Images that are their own class everywhere: the mean of a mixed image is its share of each class."""
    images = jnp.broadcast_to(jnp.arange(4.0)[:, None, None, None], (4, 16, 16, 3))
    targets = jnp.eye(4)
    shares = set()
    mix = jax.jit(lambda key: losses.mix(options, images, targets, key))
    for seed in range(20):
        mixed, soft = mix(jax.random.key(seed))
        np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), soft @ jnp.arange(4.0), atol=1e-5)
        np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
        shares.add(round(float(soft[0, 0]), 4))
    assert len(shares) > 10


def test_both_ways_of_mixing_are_taken_in_turn() -> None:
    options = training.Loss(mixup=0.8, cutmix=1.0)
    images = jnp.broadcast_to(jnp.array([0.0, 1.0])[:, None, None, None], (2, 16, 16, 1))
    binary = 0
    mix = jax.jit(lambda key: losses.mix(options, images, jnp.eye(2), key))
    for seed in range(40):
        mixed, _ = mix(jax.random.key(seed))
        binary += bool(jnp.isin(mixed, jnp.array([0.0, 1.0])).all())
    assert 10 < binary < 30


@pytest.mark.parametrize(
    ("path", "layer"),
    [("patch_embed/proj/kernel", 0), ("cls_token", 0), ("blocks/0/mlp/fc1/bias", 1), ("blocks/11/norm1/scale", 12),
     ("norm/scale", 13), ("head/kernel", 13)],
)  # fmt: skip
def test_layers_are_counted_from_the_embeddings_to_the_head(path, layer) -> None:
    assert parameters_by_path(ViTConfig())[path].layer == layer


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "adafactor", "muon"])
def test_every_optimizer_learns(name) -> None:
    """A batch of one image per class, again and again."""
    rate = {"sgd": 0.05, "lamb": 0.1}.get(name, 3e-3)
    optimizer = training.Optimizer(name=name, weight_decay=0.0)
    recipe = training.Recipe(optimizer, training.Schedule("constant", peak=rate))
    found, _ = _again(recipe, 32)
    assert found[-1] < 0.6 * found[0]


def test_adafactors_second_moment_is_its_papers_with_the_cap_on_beta2() -> None:
    """Two steps of a vector, which is not factored, and a matrix of 128, which is. Oracle: Shazeer & Stern in numpy."""
    rng = np.random.default_rng(0)
    options = training.Optimizer("adafactor", beta1=0.0, beta2=0.3, weight_decay=0.0)
    params = {"blocks/0/mlp/fc1/kernel": jnp.zeros((128, 160)), "blocks/0/mlp/fc1/bias": jnp.zeros(160)}
    optimizer = training.make_optimizer(options, training.make_schedule(PLAIN.schedule, 2), STILL)
    state = optimizer.init(params)
    full = np.zeros(160)
    rows, columns = np.zeros(128), np.zeros(160)
    for step in range(2):
        matrix, vector = rng.standard_normal((128, 160)), rng.standard_normal(160)
        gradients = {"blocks/0/mlp/fc1/kernel": jnp.asarray(matrix), "blocks/0/mlp/fc1/bias": jnp.asarray(vector)}
        updates, state = optimizer.update(gradients, state, params)
        beta = min(1 - (step + 1.0) ** -0.8, 0.3)
        full = beta * full + (1 - beta) * vector**2
        rows = beta * rows + (1 - beta) * (matrix**2).mean(axis=1)
        columns = beta * columns + (1 - beta) * (matrix**2).mean(axis=0)
        expected = {"blocks/0/mlp/fc1/kernel": matrix / np.sqrt(np.outer(rows / rows.mean(), columns)),
                    "blocks/0/mlp/fc1/bias": vector / np.sqrt(full)}  # fmt: skip
        for path, direction in expected.items():
            clipped = direction / max(1.0, float(np.sqrt((direction**2).mean())))
            # bfloat16 momentum rounds to 8 bits
            np.testing.assert_allclose(updates[path], -1e-3 * clipped, rtol=2**-7, atol=1e-8)


def _again(recipe: training.Recipe, steps: int) -> tuple[list[float], training.TrainState]:
    model = vit_jax.create_model(STILL)
    params = vit_jax.get_params(model)
    optimizer = training.make_optimizer(recipe.optimizer, training.make_schedule(recipe.schedule, steps), STILL)
    forward = training.Forward(model)
    update = jax.jit(training.make_update(forward, optimizer, recipe))
    state = training.init_state(params, optimizer, recipe)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.standard_normal((5, *STILL.image_size, 3)), jnp.float32),
        "target": jnp.eye(5),
        "label": jnp.arange(5),
        "weight": jnp.ones(5),
        "index": jnp.arange(5),
    }
    found = []
    for _ in range(steps):
        state, metrics = update(state, batch, jax.random.key(0))
        found.append(float(metrics["loss"]))
    return found, state


def test_the_moving_average_is_its_recursion() -> None:
    recipe = training.Recipe(schedule=PLAIN.schedule, ema=0.5)
    initial = vit_jax.get_params(vit_jax.create_model(STILL))["head/kernel"]
    _, one = _again(recipe, 1)
    assert one.ema is not None
    expected = 0.5 * np.asarray(initial) + 0.5 * np.asarray(one.params["head/kernel"])
    np.testing.assert_allclose(one.ema["head/kernel"], expected, atol=1e-8)
    assert np.abs(expected - np.asarray(one.params["head/kernel"])).max() > 1e-4


def test_sharpness_awareness_is_the_gradient_uphill() -> None:
    """With SGD of rate 1 the step is minus the gradient at the point uphill, which plain SGD's is not."""
    flat = training.Optimizer(name="sgd", beta1=0.0, weight_decay=0.0)
    sharp = training.Optimizer(name="sgd", beta1=0.0, weight_decay=0.0, sharpness=0.5)
    schedule = training.Schedule("constant", peak=1.0)
    _, plain = _again(training.Recipe(flat, schedule), 1)
    _, aware = _again(training.Recipe(sharp, schedule), 1)
    start = vit_jax.get_params(vit_jax.create_model(STILL))
    gradient = {path: start[path] - plain.params[path] for path in start}
    norm = math.sqrt(sum(float((array**2).sum()) for array in gradient.values()))
    assert max(float(jnp.abs(aware.params[path] - plain.params[path]).max()) for path in start) > 1e-4
    uphill = {path: start[path] + 0.5 * gradient[path] / norm for path in start}
    again = vit_jax.create_model(STILL)
    vit_jax.set_params(again, uphill)
    forward = training.Forward(again)
    optimizer = training.make_optimizer(flat, training.make_schedule(schedule, 1), STILL)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.standard_normal((5, *STILL.image_size, 3)), jnp.float32),
        "target": jnp.eye(5), "label": jnp.arange(5), "weight": jnp.ones(5), "index": jnp.arange(5),
    }  # fmt: skip
    update = training.make_update(forward, optimizer, training.Recipe(flat, schedule))
    after, _ = update(training.init_state(uphill, optimizer, training.Recipe(flat, schedule)), batch, jax.random.key(0))
    for path in start:
        np.testing.assert_allclose(uphill[path] - after.params[path], start[path] - aware.params[path], atol=1e-6)


def test_nothing_is_compiled_after_the_first_step_and_the_state_is_given_away(caplog) -> None:
    model = vit_jax.create_model(CONFIG)
    params = vit_jax.get_params(model)
    optimizer = training.make_optimizer(RECIPE.optimizer, training.make_schedule(RECIPE.schedule, 4), CONFIG)
    from vit_spec import Preprocessing

    mesh = training.make_mesh(ONE, jax.devices()[:1])
    engine = training.jit_engine(training.Forward(model), optimizer, RECIPE, Preprocessing(), mesh, jax.random.key(0))
    state = engine.place_state(training.init_state(params, optimizer, RECIPE))
    first, *rest = batches(4)
    old = state
    state, _ = engine.step(state, engine.place_batch(first))
    assert old.params["head/kernel"].is_deleted()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        caplog.clear()
        for batch in rest:
            state, _ = engine.step(state, engine.place_batch(batch))
    assert not [record for record in caplog.records if "Compiling" in record.message]


def test_dropout_and_depth_are_drawn_anew_at_each_step_and_the_same_in_each_run() -> None:
    recipe = without(RECIPE, loss=training.Loss())
    first, state = run(ONE, steps=2, recipe=recipe, devices=1)
    again, same = run(ONE, steps=2, recipe=recipe, devices=1)
    still, _ = run(ONE, steps=2, recipe=recipe, config=STILL, devices=1)
    assert first == again
    assert all((state.params[path] == same.params[path]).all() for path in state.params)
    assert first[0] != still[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda: training.Optimizer(frozen=("blocks/9",)), "matches no parameter"),
        (lambda: training.Optimizer(frozen=("blocks", "patch_embed", "cls_token", "pos_embed", "norm", "head")),
         "freezes every parameter"),
    ],
)  # fmt: skip
def test_freezing_what_is_not_there_is_one_sentence(options, words) -> None:
    with pytest.raises(VitportError, match=words):
        training.make_optimizer(options(), training.make_schedule(PLAIN.schedule, 1), STILL)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: training.Schedule(peak=0), r"schedule\.peak must be a learning rate above 0; got 0"),
        (lambda: training.Schedule("cosine", cooldown=3), "applies to rsqrt and constant, not to cosine"),
        (lambda: training.Schedule(warmup=-1), r"schedule\.warmup must be 0 steps or more; got -1"),
        (lambda: training.Optimizer(beta2=1.0), r"beta2 must be in \[0, 1\); got 1.0"),
        (lambda: training.Optimizer(layer_decay=0.0), "layer_decay must be above 0 and at most 1; got 0.0"),
        (lambda: training.Optimizer(weight_decay=float("nan")), "weight_decay must be a finite 0 or more; got nan"),
        (lambda: training.Optimizer(clip_norm=0.0), "clip_norm must be above 0, or None; got 0.0"),
        (lambda: training.Loss(mixup=-1.0), "mixup must be a finite 0 or more; got -1.0"),
        (lambda: training.Loss(temperature=0.0), "temperature must be above 0; got 0.0"),
        (lambda: training.Loss(smoothing=1.5), "smoothing must be from 0 to 1; got 1.5"),
        (lambda: training.Loss("softmax", binary=True), "needs name='sigmoid' and no smoothing; got name='softmax'"),
        (lambda: training.Loss("sigmoid", binary=True, smoothing=0.1), "and smoothing=0.1"),
        (lambda: training.Recipe(accumulation=0), "accumulation must be 1 or more; got 0"),
        (lambda: training.Recipe(ema=1.0), r"ema must be in \[0, 1\); got 1.0"),
        (lambda: training.make_mesh(MeshShape(3, 1, 1), jax.devices()[:1]), "needs 3 devices and has 1"),
        (lambda: training.make_mesh(MeshShape(-1, -1, 1)), "has more than one -1"),
        (lambda: training.make_mesh(MeshShape(0, 1, 1)), "data=0,fsdp=1,tensor=1 has an empty axis"),
        (lambda: check_divides(CONFIG, 15, 2, training.make_mesh(ONE, jax.devices()[:1])), "choose a multiple of 2"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, words) -> None:
    with pytest.raises(VitportError, match=words):
        make()
