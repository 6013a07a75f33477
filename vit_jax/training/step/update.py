"""One training step as a pure function of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.preprocessing import normalise
from vit_jax.pure import Params
from vit_jax.training.recipe.recipe import Recipe
from vit_jax.training.step.forward import Forward
from vit_jax.training.step.losses import mix, soft_targets, total_loss
from vit_jax.training.step.optimizer import frozen_paths, moving, trained
from vit_spec import Preprocessing

Batch = dict[str, Any]
"""``image`` (B, H, W, C), uint8, or floats that are normalised already; ``label`` (B,) integers, or (B, K)
of 0 and 1 for several labels an image; ``index`` (B,), the
image's place in the whole run, from which its random numbers are derived; optionally ``weight`` (B,), 0 for images that
could not be read, and ``teacher`` (B, K), a teacher's logits."""
Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a step changes; arrays only."""

    step: jax.Array
    """Steps taken, shape ()."""
    params: Params
    """By path, as :func:`vit_jax.get_params` names them."""
    opt_state: Any
    ema: Params | None
    """Exponential moving average of the parameters, if the recipe has one."""


def init_state(params: Mapping[str, jax.Array], optimizer: optax.GradientTransformation, recipe: Recipe) -> TrainState:
    """The state before the first step."""
    params = {path: jnp.asarray(array) for path, array in params.items()}
    ema = {path: jnp.array(array, copy=True) for path, array in params.items()} if recipe.ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)


@dataclass(frozen=True)
class Teacher:
    """A model that classifies every batch as the student sees it, augmented and mixed."""

    params: Any
    """Passed to ``logits``."""
    logits: Callable[[Any, jax.Array], jax.Array]
    """From ``params`` and normalised images (B, H, W, C) to (B, K)."""


def prepare(
    batch: Batch,
    recipe: Recipe,
    classes: int,
    preprocessing: Preprocessing,
    key: jax.Array,
    teacher: Callable[[jax.Array], jax.Array] | None = None,
) -> Batch:
    """Normalises and mixes the images, and makes soft targets; for the global batch, however it is sharded.

    Args:
        teacher: from images to logits, which become the batch's ``teacher``.
    """
    images = normalise(batch["image"], preprocessing)
    targets = soft_targets(batch["label"], classes, recipe.loss.smoothing)
    weight = batch.get("weight", jnp.ones(len(targets), jnp.float32))
    if recipe.loss.mixes:
        images, targets = mix(recipe.loss, images, targets, key)
        weight = weight * weight[::-1]  # images mixed with an unread image do not count either
    taught = {} if teacher is None else {"teacher": teacher(images)}
    return {**batch, "image": images, "target": targets, "weight": weight, **taught}


def is_right(logits: jax.Array, targets: jax.Array, *, several: bool) -> jax.Array:
    """(B, K), (B, K) -> (B,): whether the likeliest class has the largest share of the target, or, where an image may
    have several labels, is one of them."""
    likeliest = logits.argmax(axis=-1)
    if not several:
        return likeliest == targets.argmax(axis=-1)
    return jnp.take_along_axis(targets, likeliest[:, None], axis=-1)[:, 0] >= 0.5


def make_update(
    forward: Forward, optimizer: optax.GradientTransformation, recipe: Recipe, axis: str | None = None
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """A training step on a prepared batch, or on one device's shard of it.

    Args:
        axis: under ``pmap``, the mapped axis over which gradients are averaged.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"]) if forward.random else None
        logits = forward(params, batch["image"], keys)
        weight = batch["weight"]
        losses = total_loss(recipe.loss, logits, batch["target"], batch.get("teacher"))
        head = logits[0] if isinstance(logits, tuple) else logits
        right = is_right(head, batch["target"], several=batch["label"].ndim == 2)
        # The mean counts unread images as 0, so microbatches and devices average the same wherever these are.
        return (losses * weight).mean(), (right * weight).mean(dtype=jnp.float32)

    frozen = frozen_paths(recipe.optimizer.frozen, forward.config)

    def gradients(params: Params, batch: Batch, key: jax.Array) -> tuple[Params, Metrics]:
        """Of what is trained alone."""
        own = trained(frozen, params)
        still = {path: array for path, array in params.items() if path not in own}

        def of_trained(own: Params, still: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            return loss(still | own, batch, key)

        value_and_grad = jax.value_and_grad(of_trained, has_aux=True)
        if recipe.accumulation == 1:
            (value, right), found = value_and_grad(own, still, batch, key)
        else:

            def part(total: Any, piece: Batch) -> tuple[Any, None]:
                both = (own, still)
                if forward.cut_by_fsdp:
                    # Without it XLA all-gathers the weights before the loop, and stores them whole throughout.
                    both, piece = jax.lax.optimization_barrier((both, piece))
                (value, right), found = value_and_grad(*both, piece, key)
                return jax.tree.map(jnp.add, total, (found, value, right)), None

            # Each microbatch takes a share of every device's images.
            pieces = jax.tree.map(lambda x: x.reshape(-1, recipe.accumulation, *x.shape[1:]).swapaxes(0, 1), batch)
            shapes = jax.eval_shape(value_and_grad, own, still, jax.tree.map(lambda x: x[0], pieces), key)
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[1], *shapes[0]))
            total, _ = jax.lax.scan(part, zeros, pieces)
            found, value, right = jax.tree.map(lambda x: x / recipe.accumulation, total)
        metrics = {"loss": value, "accuracy": right}
        found = moving(frozen, found)
        return (found, metrics) if axis is None else jax.lax.pmean((found, metrics), axis)

    def update(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        found, metrics = gradients(state.params, batch, key)
        metrics["gradient_norm"] = _norm(found)
        if radius := recipe.optimizer.sharpness:
            scale = radius / (metrics["gradient_norm"] + 1e-12)
            uphill = {path: state.params[path] + scale * array for path, array in found.items()}
            found, _ = gradients(state.params | uphill, batch, key)
        before = state.params
        if forward.on_one_cpu:
            # Without it XLA copies all parameters first: it does not see that each is last read before it is
            # overwritten.
            found, before = jax.lax.optimization_barrier((found, before))
        none = {path: jnp.zeros_like(array) for path, array in before.items() if path not in found}
        updates, opt_state = optimizer.update(none | found, state.opt_state, before)
        updates = moving(frozen, updates)  # type: ignore[arg-type]
        moved: Params = optax.apply_updates({path: before[path] for path in updates}, updates)  # type: ignore[assignment]
        params = before | moved
        # The next checkpoint uses these parameters; divergence does not yet show in the gradients.
        metrics["parameter_norm"] = _norm(params)
        ema = state.ema
        if ema is not None:
            ema = {path: recipe.ema * old + (1 - recipe.ema) * params[path] for path, old in ema.items()}
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return update


def _norm(tree: Params) -> jax.Array:
    """The global norm."""
    return jnp.sqrt(sum(map(_square_sum, tree.values()), 0.0))


@jax.jit  # traced once for all arrays of a shape
def _square_sum(x: jax.Array) -> jax.Array:
    return jnp.square(x).sum()
