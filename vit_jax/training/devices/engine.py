"""The compiled step on devices: under ``jit`` over a mesh, or under ``pmap``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from vit_jax.layers.xla.platform import platform_of
from vit_jax.training.devices.chips import compiler_options
from vit_jax.training.devices.sharding import BATCH, like_params, shardings
from vit_jax.training.recipe.recipe import Recipe
from vit_jax.training.step.forward import Forward
from vit_jax.training.step.optimizer import frozen_paths
from vit_jax.training.step.stacked import Split, stack, unstack
from vit_jax.training.step.update import Batch, Metrics, Teacher, TrainState, make_update, prepare
from vit_spec import Preprocessing, VitportError

_KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
"""XLA's CPU compiler removes ``optimization_barrier`` before it eliminates common subexpressions, which undoes the
rematerialisation of unrolled blocks. Without that pass barriers work as on other devices. XLA ignores unknown names;
then ``tests/vit_jax/training/test_remat.py`` fails."""


@dataclass(frozen=True)
class Engine:
    """Runs steps on devices; made by :func:`jit_engine` and :func:`pmap_engine`."""

    layout: Callable[[TrainState], TrainState]
    """From a state's shapes to the shardings in which it is created and restored."""
    place_state: Callable[[TrainState], Any]
    """From a state as created or restored to the form that ``step`` takes. It takes the state over: its arrays may be
    gone then."""
    place_batch: Callable[[Batch], Any]
    """From this process's rows of the batch, in numpy, to the devices."""
    step: Callable[[Any, Any], tuple[Any, Metrics]]
    """Donates the old state."""
    fetch: Callable[[Any], TrainState]
    """The inverse of ``place_state``: one copy, with blocks stored separately. It takes the state over too, so that
    devices never hold it twice: ``place_state`` gives it back."""
    lower: Callable[[TrainState, Batch], jax.stages.Lowered]
    """Lowers the step for the shapes of a state and a batch."""


def jit_engine(
    forward: Forward,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    preprocessing: Preprocessing,
    mesh: Mesh,
    key: jax.Array,
    teacher: Teacher | None = None,
) -> Engine:
    """``jit`` over a mesh: batches are sharded along ``data`` and ``fsdp``, parameters by ``sharding.partition``.

    Args:
        key: of the run; each step folds in its number.
    """
    update = make_update(forward.on_mesh(mesh), optimizer, recipe)
    stacked = partial(stack, segments=forward.segments)
    classes = forward.config.num_classes
    rows = NamedSharding(mesh, BATCH)

    def where(state: TrainState) -> TrainState:
        params = shardings(state.params, forward.config, mesh)
        moments = like_params(state.opt_state, state.params, forward.config, mesh)
        return TrainState(NamedSharding(mesh, PartitionSpec()), params, moments, params if state.ema else None)  # type: ignore[arg-type]

    def whole(state: TrainState, batch: Batch, key: jax.Array, taught: Any) -> tuple[TrainState, Metrics]:
        mixing = jax.random.fold_in(jax.random.fold_in(key, 1), state.step)
        asked = None if teacher is None else partial(teacher.logits, taught)
        batch = prepare(batch, recipe, classes, preprocessing, mixing, asked)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # read by layers.xla.packed
            return update(state, batch, key)

    compiled: dict[Any, Any] = {}

    @cache
    def taught() -> Any:
        return None if teacher is None else jax.device_put(teacher.params, NamedSharding(mesh, PartitionSpec()))

    def program(state: TrainState) -> Any:
        if whole not in compiled:
            places, shared = where(state), NamedSharding(mesh, PartitionSpec())
            into, out = (places, rows, shared, shared), (places, shared)
            compiled[whole] = jax.jit(
                whole, donate_argnums=0, in_shardings=into, out_shardings=out, compiler_options=_options(mesh)
            )
        return compiled[whole]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return program(state)(state, batch, key, taught())

    def lower(state: TrainState, batch: Batch) -> jax.stages.Lowered:
        if forward.scan:
            state = jax.eval_shape(stacked, state)
        shapes = jax.eval_shape(lambda: (key, None if teacher is None else teacher.params))  # devices may not be here
        return program(state).lower(state, batch, *shapes)

    @cache
    def stacks(*spec: Any) -> Any:
        return jax.jit(lambda *parts: jnp.stack(parts), out_shardings=NamedSharding(mesh, PartitionSpec(None, *spec)))

    @cache
    def splits(*spec: Any) -> Any:
        return jax.jit(tuple, out_shardings=NamedSharding(mesh, PartitionSpec(*spec)))

    def take_over(parts: Sequence[jax.Array]) -> jax.Array:
        """Stacked; the parts are freed, so that the state is never there twice."""
        spec = next(part.sharding.spec for part in parts if isinstance(part.sharding, NamedSharding))
        return _instead(stacks(*spec), *parts)

    def give_back(whole: jax.Array) -> Sequence[jax.Array]:
        assert isinstance(whole.sharding, NamedSharding)
        return _instead(splits(*whole.sharding.spec[1:]), whole)

    def place_state(state: TrainState) -> TrainState:
        state = jax.device_put(state, where(state))
        return stack(state, forward.segments, take_over) if forward.scan else state

    def fetch(state: TrainState) -> TrainState:
        return _unstacked(forward, recipe, state, give_back) if forward.scan else state

    return Engine(where, place_state, partial(place_rows, mesh=mesh), step, fetch, lower)


def _options(mesh: Mesh) -> dict[str, Any] | None:
    """For the compiler of the mesh's devices, be they here or not."""
    on_cpu = platform_of(mesh) == "cpu"
    return _KEEP_BARRIERS if on_cpu else compiler_options(mesh.devices.flat[0].device_kind) or None


def _instead(change: Callable[..., Any], *arrays: jax.Array) -> Any:
    """What ``change`` makes of the arrays, which are freed."""
    made = jax.block_until_ready(change(*arrays))
    for array in arrays:
        array.delete()
    return made


def _unstacked(forward: Forward, recipe: Recipe, state: TrainState, split: Split = list) -> TrainState:
    params, ema = unstack((state.params, state.ema), forward.segments, split=split)
    frozen = frozen_paths(recipe.optimizer.frozen, forward.config)
    masked = [path for path, still in frozen.items() if still]
    return TrainState(state.step, params, unstack(state.opt_state, forward.segments, masked, split), ema)


def place_rows(batch: Batch, mesh: Mesh) -> Batch:
    """Places this process's rows of a batch (:func:`own_rows`) on its devices."""
    sharding = NamedSharding(mesh, BATCH)
    share = len(own_rows(mesh, mesh.size))  # of a batch of one row per device

    def placed(x: Any) -> jax.Array:
        return jax.make_array_from_process_local_data(
            sharding, np.asarray(x), (len(x) * mesh.size // share, *x.shape[1:])
        )

    return {name: placed(x) for name, x in batch.items()}


def own_rows(mesh: Mesh, batch: int) -> np.ndarray:
    """The rows of a batch that lie on the devices of this process."""
    places = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[place] for place in places if place is not None]))


def pmap_engine(
    forward: Forward,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    preprocessing: Preprocessing,
    key: jax.Array,
    teacher: Teacher | None = None,
    devices: Sequence[Any] | None = None,
) -> Engine:
    """``pmap`` over the devices of one process, each with a copy of everything; gives the results of ``jit_engine``.

    Args:
        key: of the run; each step folds in its number.
        devices: that the step is for, which need not be here; ``None``: those of this process.

    Raises:
        VitportError: if there are several processes.
    """
    if jax.process_count() > 1:
        raise VitportError("parallel=pmap runs in one process, and there are several: choose parallel=jit.")
    devices = jax.local_devices() if devices is None else devices
    copies = NamedSharding(Mesh(np.array(devices), ("devices",)), PartitionSpec("devices"))
    update: Any = jax.pmap(
        make_update(forward, optimizer, recipe, "devices"), "devices", in_axes=(0, 0, None), donate_argnums=0,
        devices=devices,
    )  # fmt: skip
    classes = forward.config.num_classes

    @jax.jit
    def prepared(batch: Batch, step: jax.Array, taught: Any) -> Batch:
        mixing = jax.random.fold_in(jax.random.fold_in(key, 1), step)
        asked = None if teacher is None else partial(teacher.logits, taught)
        batch = prepare(batch, recipe, classes, preprocessing, mixing, asked)
        return jax.tree.map(lambda x: x.reshape(len(devices), -1, *x.shape[1:]), batch)

    def to_all(x: jax.Array) -> jax.Array:
        parts = [jax.device_put(x[None], device) for device in devices]
        return jax.make_array_from_single_device_arrays((len(devices), *x.shape), copies, parts)

    def from_one(x: jax.Array) -> jax.Array:
        return x.addressable_shards[0].data.reshape(x.shape[1:])

    def place_state(state: TrainState) -> TrainState:
        if forward.scan:
            state = stack(state, forward.segments, lambda parts: _instead(lambda *parts: jnp.stack(parts), *parts))
        return jax.tree.map(partial(_instead, to_all), state)

    def fetch(state: TrainState) -> TrainState:
        state = jax.tree.map(partial(_instead, from_one), state)
        return _unstacked(forward, recipe, state, partial(_instead, list)) if forward.scan else state

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        number = state.step.addressable_shards[0].data.reshape(())
        taught = None if teacher is None else teacher.params
        state, metrics = update(state, jax.device_put(prepared(batch, number, taught), copies), key)
        return state, {name: value.addressable_shards[0].data.reshape(()) for name, value in metrics.items()}

    def layout(state: TrainState) -> TrainState:
        return jax.tree.map(lambda leaf: SingleDeviceSharding(devices[0]), state)

    def lower(state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """What follows the preparation of a batch, which is a program of its own."""

        def shapes(state: TrainState, batch: Batch, taught: Any) -> tuple[TrainState, Batch]:
            state = stack(state, forward.segments) if forward.scan else state
            return jax.tree.map(lambda x: jnp.stack([x] * len(devices)), state), prepared(batch, 0, taught)

        taught = None if teacher is None else teacher.params
        return update.lower(*jax.eval_shape(shapes, state, batch, taught), jax.eval_shape(lambda: key))

    return Engine(layout, place_state, lambda batch: batch, step, fetch, lower)
