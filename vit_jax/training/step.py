"""One training step as a pure function of arrays, under ``jit`` over a mesh or under ``pmap``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from vit_jax.training.forward import Forward, Params
from vit_jax.training.losses import mix, soft_targets, total_loss
from vit_jax.training.optimizer import frozen_paths
from vit_jax.training.recipe import Recipe
from vit_jax.training.sharding import BATCH, like_params, shardings
from vit_spec import Preprocessing, VitportError

Batch = dict[str, Any]
"""``image`` (B, H, W, C), uint8, or floats that are normalised already; ``label`` (B,) integers; ``index`` (B,), the
picture's place in the whole run, on which its random numbers hang; if given, ``weight`` (B,), 0 for pictures that could
not be read, and ``teacher`` (B, K), a teacher's logits."""
Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a step changes: nothing but arrays."""

    step: jax.Array
    """Steps taken, ()."""
    params: Params
    """As :func:`vit_jax.get_params` names them."""
    opt_state: Any
    ema: Params | None
    """The moving average of the parameters, where the recipe keeps one."""


def init_state(params: Mapping[str, jax.Array], optimizer: optax.GradientTransformation, recipe: Recipe) -> TrainState:
    """The state before the first step."""
    params = {path: jnp.asarray(array) for path, array in params.items()}
    ema = {path: jnp.array(array, copy=True) for path, array in params.items()} if recipe.ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)


def normalised(images: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """(B, H, W, C), uint8, as the model sees it; floats are taken to be so already."""
    if images.dtype != jnp.uint8:
        return images
    mean, std = (jnp.asarray(values, jnp.float32) for values in (preprocessing.mean, preprocessing.std))
    return (images.astype(jnp.float32) / 255 - mean) / std


@dataclass(frozen=True)
class Teacher:
    """A model that is asked about every batch as the student sees it, mixed and augmented."""

    params: Any
    """Arrays that ``logits`` is given."""
    logits: Callable[[Any, jax.Array], jax.Array]
    """From them and normalised pictures (B, H, W, C), to (B, K)."""


def prepare(
    batch: Batch,
    recipe: Recipe,
    classes: int,
    preprocessing: Preprocessing,
    key: jax.Array,
    teacher: Callable[[jax.Array], jax.Array] | None = None,
) -> Batch:
    """Pictures normalised and mixed, labels made soft; the whole batch at once, whatever devices it lies on.

    Args:
        teacher: from the pictures to its logits, which the batch is given.
    """
    images = normalised(batch["image"], preprocessing)
    targets = soft_targets(batch["label"], classes, recipe.loss.smoothing)
    weight = batch.get("weight", jnp.ones(len(targets), jnp.float32))
    if recipe.loss.mixes:
        images, targets = mix(recipe.loss, images, targets, key)
        weight = weight * weight[::-1]  # what is mixed with a picture that could not be read is none either
    taught = {} if teacher is None else {"teacher": teacher(images)}
    return {**batch, "image": images, "target": targets, "weight": weight, **taught}


def make_update(
    forward: Forward, optimizer: optax.GradientTransformation, recipe: Recipe, axis: str | None = None
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """A step on a prepared batch, or on one device's share of it.

    Args:
        axis: name of the mapped axis over which gradients are averaged, under ``pmap``.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"]) if forward.random else None
        logits = forward(params, batch["image"], keys)
        weight = batch["weight"]
        losses = total_loss(recipe.loss, logits, batch["target"], batch.get("teacher"))
        head = logits[0] if isinstance(logits, tuple) else logits
        right = head.argmax(axis=-1) == batch["target"].argmax(axis=-1)
        # Over the whole batch, unread pictures counting 0: so parts and devices average alike, whoever has them.
        return (losses * weight).mean(), (right * weight).mean(dtype=jnp.float32)

    def gradients(params: Params, batch: Batch, key: jax.Array) -> tuple[Params, Metrics]:
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        if recipe.accumulation == 1:
            (value, right), found = value_and_grad(params, batch, key)
        else:

            def part(total: Any, piece: Batch) -> tuple[Any, None]:
                own = params
                if forward.cut_by_fsdp:
                    # Else XLA gathers all weights before the loop, and holds them whole throughout it.
                    own, piece = jax.lax.optimization_barrier((params, piece))
                (value, right), found = value_and_grad(own, piece, key)
                return jax.tree.map(jnp.add, total, (found, value, right)), None

            # Every part has a share of every device's pictures.
            pieces = jax.tree.map(lambda x: x.reshape(-1, recipe.accumulation, *x.shape[1:]).swapaxes(0, 1), batch)
            shapes = jax.eval_shape(value_and_grad, params, jax.tree.map(lambda x: x[0], pieces), key)
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[1], *shapes[0]))
            total, _ = jax.lax.scan(part, zeros, pieces)
            found, value, right = jax.tree.map(lambda x: x / recipe.accumulation, total)
        metrics = {"loss": value, "accuracy": right}
        return (found, metrics) if axis is None else jax.lax.pmean((found, metrics), axis)

    def update(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        found, metrics = gradients(state.params, batch, key)
        still = frozen_paths(recipe.optimizer.frozen, found)
        trained = {path: array for path, array in found.items() if not still[path]}
        metrics["gradient_norm"] = optax.tree.norm(trained)
        if radius := recipe.optimizer.sharpness:
            scale = radius / (metrics["gradient_norm"] + 1e-12)
            uphill = {path: state.params[path] + scale * array for path, array in trained.items()}
            found, _ = gradients(state.params | uphill, batch, key)
        updates, opt_state = optimizer.update(found, state.opt_state, state.params)
        params: Params = optax.apply_updates(state.params, updates)  # type: ignore[assignment]
        # What is kept or evaluated next is these, and no gradient tells yet that a step too long has ruined them.
        metrics["parameter_norm"] = optax.tree.norm(params)
        ema = state.ema
        if ema is not None:
            ema = {path: recipe.ema * old + (1 - recipe.ema) * params[path] for path, old in ema.items()}
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return update


@dataclass(frozen=True)
class Engine:
    """How a step is run on the devices that there are; made by :func:`jit_engine` and :func:`pmap_engine`."""

    layout: Callable[[TrainState], TrainState]
    """From a state's shapes to the shardings in which it is made and restored."""
    place_state: Callable[[TrainState], Any]
    """From arrays on the host to where the step wants them."""
    place_batch: Callable[[Batch], Any]
    """From this process's share of the batch, in numpy, to the devices."""
    step: Callable[[Any, Any], tuple[Any, Metrics]]
    """The old state is given away."""
    fetch: Callable[[Any], TrainState]
    """The state as one copy, whatever the devices hold."""
    lower: Callable[[TrainState, Batch], jax.stages.Lowered] | None = None
    """The step's program for shapes, where it is one program."""


def jit_engine(
    forward: Forward,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    preprocessing: Preprocessing,
    mesh: Mesh,
    key: jax.Array,
    teacher: Teacher | None = None,
) -> Engine:
    """``jit`` over a mesh: batches cut along ``data`` and ``fsdp``, parameters as ``sharding.partition`` says.

    Args:
        key: of the run; each step folds its number into it.
    """
    update = make_update(forward.on_mesh(mesh), optimizer, recipe)
    classes = forward.config.num_classes
    rows = NamedSharding(mesh, BATCH)

    def where(state: TrainState) -> TrainState:
        params = shardings(state.params, mesh)
        moments = like_params(state.opt_state, state.params, mesh)
        return TrainState(NamedSharding(mesh, PartitionSpec()), params, moments, params if state.ema else None)  # type: ignore[arg-type]

    def whole(state: TrainState, batch: Batch, key: jax.Array, taught: Any) -> tuple[TrainState, Metrics]:
        mixing = jax.random.fold_in(jax.random.fold_in(key, 1), state.step)
        asked = None if teacher is None else partial(teacher.logits, taught)
        batch = prepare(batch, recipe, classes, preprocessing, mixing, asked)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # which vit_jax.packed asks for; a teacher lies whole
            return update(state, batch, key)

    taught = None if teacher is None else jax.device_put(teacher.params, NamedSharding(mesh, PartitionSpec()))
    compiled: list[Any] = []

    def program(state: TrainState) -> Any:
        if not compiled:
            places, shared = where(state), NamedSharding(mesh, PartitionSpec())
            into, out = (places, rows, shared, shared), (places, shared)
            compiled.append(jax.jit(whole, donate_argnums=0, in_shardings=into, out_shardings=out))
        return compiled[0]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return program(state)(state, batch, key, taught)

    def lower(state: TrainState, batch: Batch) -> jax.stages.Lowered:
        return program(state).lower(state, batch, key, taught)

    def place_state(state: TrainState) -> TrainState:
        return jax.device_put(state, where(state))

    return Engine(where, place_state, partial(place_rows, mesh=mesh), step, lambda state: state, lower)


def place_rows(batch: Batch, mesh: Mesh) -> Batch:
    """This process's rows of a batch, in numpy, on its devices; :func:`own_rows` says which they are."""
    sharding = NamedSharding(mesh, BATCH)
    share = len(own_rows(mesh, mesh.size))  # of as many rows as there are devices

    def placed(x: Any) -> jax.Array:
        return jax.make_array_from_process_local_data(
            sharding, np.asarray(x), (len(x) * mesh.size // share, *x.shape[1:])
        )

    return {name: placed(x) for name, x in batch.items()}


def own_rows(mesh: Mesh, batch: int) -> np.ndarray:
    """Which rows of a batch lie on the devices of this process."""
    places = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[place] for place in places if place is not None]))


def pmap_engine(
    forward: Forward,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    preprocessing: Preprocessing,
    key: jax.Array,
    teacher: Teacher | None = None,
) -> Engine:
    """``pmap`` over the devices of one process, each with a copy of everything: the classic path, kept equal to jit.

    Raises:
        VitportError: on several processes, which jit serves.
    """
    if jax.process_count() > 1:
        raise VitportError("parallel=pmap runs on the devices of one process: choose parallel=jit for several.")
    devices = jax.local_devices()
    copies = NamedSharding(Mesh(np.array(devices), ("devices",)), PartitionSpec("devices"))
    update = jax.pmap(
        make_update(forward, optimizer, recipe, "devices"), "devices", in_axes=(0, 0, None), donate_argnums=0
    )
    classes = forward.config.num_classes

    @jax.jit
    def prepared(batch: Batch, step: jax.Array, taught: Any) -> Batch:
        mixing = jax.random.fold_in(jax.random.fold_in(key, 1), step)
        asked = None if teacher is None else partial(teacher.logits, taught)
        batch = prepare(batch, recipe, classes, preprocessing, mixing, asked)
        return jax.tree.map(lambda x: x.reshape(len(devices), -1, *x.shape[1:]), batch)

    def place_state(state: TrainState) -> TrainState:
        return jax.tree.map(lambda x: jax.device_put(jnp.broadcast_to(x, (len(devices), *x.shape)), copies), state)

    def fetch(state: TrainState) -> TrainState:
        return jax.tree.map(lambda x: x.addressable_shards[0].data.reshape(x.shape[1:]), state)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        number = state.step.addressable_shards[0].data.reshape(())
        taught = None if teacher is None else teacher.params
        state, metrics = update(state, jax.device_put(prepared(batch, number, taught), copies), key)
        return state, {name: value.addressable_shards[0].data.reshape(()) for name, value in metrics.items()}

    def layout(state: TrainState) -> TrainState:
        return jax.tree.map(lambda leaf: SingleDeviceSharding(devices[0]), state)

    return Engine(layout, place_state, lambda batch: batch, step, fetch)
