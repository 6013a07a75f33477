"""A small run on any devices: shared by tests in this process and in processes with simulated devices."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

import vit_jax
from tests.random_weights import random_params
from vit_jax import training
from vit_spec import Preprocessing, ViTConfig

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=4, num_classes=5, embed_dim=32, depth=2, num_heads=4, mlp_hidden_dim=64,
    drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.2,
)  # fmt: skip
RECIPE = training.Recipe(
    optimizer=training.Optimizer(weight_decay=0.1, clip_norm=1.0, epsilon=1e-5),  # zero gradients stay near zero
    schedule=training.Schedule(peak=3e-3, warmup=1),
    loss=training.Loss(smoothing=0.1, mixup=0.4, cutmix=1.0),
    ema=0.9,
)
BATCH = 16


def batches(steps: int, config: ViTConfig = CONFIG, batch: int = BATCH) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [
        {
            "image": rng.integers(0, 256, (batch, *config.image_size, config.in_channels), dtype=np.uint8),
            "label": rng.integers(0, config.num_classes, batch).astype(np.int32),
            "index": np.arange(step * batch, (step + 1) * batch, dtype=np.int32),
        }
        for step in range(steps)
    ]


def run(
    mesh: training.MeshShape | None,
    steps: int = 4,
    config: ViTConfig = CONFIG,
    recipe: training.Recipe = RECIPE,
    devices: int | None = None,
    scan: bool = False,
    dtype: str = "float32",
) -> tuple[list[float], training.TrainState]:
    """Losses and the last state, on a mesh of the first devices, or under pmap where there is none.

    In float64, which JAX has to be told before, images are normalised before the step, which would do it in float32.
    """
    engine, initial = _engine(mesh, steps, config, recipe, devices, scan, dtype)
    state = engine.place_state(initial)
    losses = []
    for batch in batches(steps, config):
        if dtype == "float64":
            batch = {**batch, "image": batch["image"].astype(np.float64) / 127.5 - 1}
        state, metrics = engine.step(state, engine.place_batch(batch))
        losses.append(float(metrics["loss"]))
    return losses, engine.fetch(state)


def compiled(mesh: training.MeshShape, scan: bool, dtype: str = "float32") -> str:
    """The step's program."""
    engine, initial = _engine(mesh, 4, CONFIG, RECIPE, None, scan, dtype)  # as many steps as in `run`: the same program
    return engine.lower(initial, batches(1)[0]).compile().as_text() or ""


def _engine(
    mesh: training.MeshShape | None,
    steps: int,
    config: ViTConfig,
    recipe: training.Recipe,
    devices: int | None,
    scan: bool,
    dtype: str = "float32",
) -> tuple[training.Engine, training.TrainState]:
    held = "float64" if dtype == "float64" else "float32"
    model = vit_jax.create_model(config, dtype=dtype, param_dtype=held)
    from conversion import to_flax

    params = to_flax(random_params(config, seed=1, dtype=np.dtype(held)))
    vit_jax.set_params(model, params)
    forward = training.Forward(model, scan=scan)
    params = vit_jax.get_params(model)
    schedule = training.make_schedule(recipe.schedule, steps)
    optimizer = training.make_optimizer(recipe.optimizer, schedule, config)
    key = jax.random.key(7)
    if mesh is None:
        engine = training.pmap_engine(forward, optimizer, recipe, Preprocessing(), key)
    else:
        grid = training.make_mesh(mesh, jax.devices()[:devices])
        engine = training.jit_engine(forward, optimizer, recipe, Preprocessing(), grid, key)
    return engine, training.init_state(params, optimizer, recipe)


def without(recipe: training.Recipe, **changes: object) -> training.Recipe:
    return dataclasses.replace(recipe, **changes)
