"""Optimizers and schedules of optax as recipes name them, over parameters as :func:`vit_jax.get_params` gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from vit_jax.training.recipe.recipe import Optimizer, Schedule
from vit_jax.training.step.stacked import STACKED, block_by_block, each_block, single_paths
from vit_spec import VitportError


def make_schedule(options: Schedule, steps: int) -> optax.Schedule:
    """Step number → learning rate.

    Raises:
        VitportError: if warm-up and cool-down do not fit into the steps.
    """
    middle = steps - options.warmup - options.cooldown
    if middle < 0:
        raise VitportError(
            f"schedule.warmup={options.warmup} and cooldown={options.cooldown} are longer than the {steps} steps: "
            "train longer, or shorten them."
        )
    rise = optax.linear_schedule(0.0, options.peak, options.warmup)
    body = _body(options, max(middle, 1))
    if options.cooldown:
        last = body(middle)
        body = optax.join_schedules(
            [body, optax.linear_schedule(float(np.asarray(last)), 0.0, options.cooldown)], [middle]
        )
    return optax.join_schedules([rise, body], [options.warmup]) if options.warmup else body


def _body(options: Schedule, steps: int) -> optax.Schedule:
    if options.name == "cosine":
        return optax.cosine_decay_schedule(options.peak, steps, alpha=options.final / options.peak)
    if options.name == "linear":
        return optax.linear_schedule(options.peak, options.final, steps)
    if options.name == "rsqrt":
        scale = float(options.timescale)
        return lambda step: options.peak * jnp.sqrt(scale / jnp.maximum(jnp.asarray(step, jnp.float32), scale))
    return optax.constant_schedule(options.peak)


def is_kernel(path: str) -> bool:
    """Whether weight decay applies: to the kernels of linear layers and convolutions, not to biases, norms, tokens."""
    return path.endswith("/kernel")


def layer_of(path: str, depth: int) -> int:
    """0 for the embeddings, 1 to ``depth`` for the blocks, ``depth + 1`` for what comes after them."""
    parts = path.split("/")
    if parts[0] == "blocks":
        return int(parts[1]) + 1
    early = {"patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token", "norm_pre"}
    return 0 if parts[0] in early else depth + 1


def make_optimizer(
    options: Optimizer, schedule: optax.Schedule, params: Mapping[str, Any]
) -> optax.GradientTransformation:
    """The chain: clip, precondition, decay the weights, scale by layer, times the learning rate.

    Its updates may be of stacked blocks (:mod:`vit_jax.training.step.stacked`), with a stacked state; it makes the
    state of single ones.

    Args:
        params: path → array or shape, of single blocks.

    Raises:
        VitportError: if ``frozen`` names what the model does not have, or everything that it has.
    """
    steps = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm is not None else []
    steps.append(_direction(options))
    if options.weight_decay:
        steps.append(block_by_block(optax.add_decayed_weights(options.weight_decay, mask=_kernels)))
    if options.name == "lamb":
        steps.append(optax.masked(each_block(optax.scale_by_trust_ratio()), _kernels))
    if options.layer_decay != 1.0:
        steps.append(_scaled_by_layer(options.layer_decay, params))
    steps.append(block_by_block(optax.scale_by_learning_rate(schedule)))
    chain = optax.chain(*steps)
    if not any(frozen_paths(options.frozen, params).values()):
        return chain

    def labels(tree: Mapping[str, Any]) -> dict[str, str]:
        return {path: "frozen" if still.all() else "trained" for path, still in _still(options.frozen, tree).items()}

    return optax.partition({"trained": chain, "frozen": optax.set_to_zero()}, labels)


def _kernels(tree: Mapping[str, Any]) -> dict[str, bool]:
    return {path: is_kernel(path) for path in tree}


def _direction(options: Optimizer) -> optax.GradientTransformation:
    o = options
    if o.name in ("adamw", "lamb"):
        return block_by_block(optax.scale_by_adam(o.beta1, o.beta2, o.epsilon))
    if o.name == "sgd":
        return block_by_block(optax.trace(o.beta1)) if o.beta1 else optax.identity()
    if o.name == "adafactor":
        # Zhai et al. 2022, section 3.4: no scaling by the parameters' size, a cap on beta2, half-precision momentum.
        factored = optax.scale_by_factored_rms(decay_rate_fn=_capped(o.beta2), epsilon=1e-30)
        clipped = optax.clip_by_block_rms(1.0)
        momentum = optax.ema(o.beta1, debias=False, accumulator_dtype=jnp.bfloat16)
        return each_block(optax.chain(factored, clipped, momentum))
    muon = optax.chain(
        contrib.scale_by_muon(beta=o.beta1, weight_dimension_numbers=_matrices), optax.stateless(_by_shape)
    )

    def hidden(tree: Mapping[str, Any]) -> dict[str, str]:
        return {path: "muon" if path.startswith("blocks/") and is_kernel(path) else "adam" for path in tree}

    return optax.partition({"muon": each_block(muon), "adam": optax.scale_by_adam(o.beta1, o.beta2, o.epsilon)}, hidden)


def _capped(beta2: float) -> Callable[[Any, Any], jax.Array]:
    """Shazeer & Stern 2018, section 7.2, ``1 - (step + 1) ** -rate``, at most ``beta2``."""
    return lambda step, rate: jnp.minimum(1.0 - (jnp.asarray(step, jnp.float32) + 1.0) ** -rate, beta2)


def _matrices(updates: Any) -> Any:
    """For Muon: every array is a matrix (in, out); what is masked out stays so."""
    return jax.tree.map(lambda x: contrib.MuonDimensionNumbers(), updates)


def _by_shape(updates: Any, params: Any) -> Any:
    """Orthogonal steps of kernels (in, out) times ``sqrt(max(1, out / in))`` (Jordan et al. 2024, Muon)."""
    del params
    return jax.tree.map(lambda x: x * max(1.0, x.shape[1] / x.shape[0]) ** 0.5, updates)


def _scaled_by_layer(decay: float, params: Mapping[str, Any]) -> optax.GradientTransformation:
    depth = max(layer_of(path, 0) for path in params if path.startswith("blocks/"))
    factors = {path: decay ** (depth + 1 - layer_of(path, depth)) for path in params}

    def scale(path: str, x: jax.Array) -> jax.Array:
        own = jnp.array([factors[name] for name in single_paths(path, depth)], x.dtype)
        return x * own.reshape(-1, *[1] * (x.ndim - 1) if path.startswith(STACKED) else [])

    def scaled(updates: Any, params: Any) -> Any:
        del params
        # What is frozen is masked out by optax and has no array here.
        return {path: scale(path, x) if isinstance(x, jax.Array) else x for path, x in updates.items()}

    return optax.stateless(scaled)


def frozen_paths(beginnings: tuple[str, ...], params: Mapping[str, Any]) -> dict[str, bool]:
    """Path → whether it stays as it is.

    Raises:
        VitportError: if a beginning is that of no path, or nothing is left to train.
    """

    def begins(path: str, start: str) -> bool:
        return path == start or path.startswith(f"{start.rstrip('/')}/")

    for start in beginnings:
        if not any(begins(path, start) for path in params):
            raise VitportError(f"optimizer.frozen={start!r} is the beginning of no parameter, such as {min(params)}.")
    frozen = {path: any(begins(path, start) for start in beginnings) for path in params}
    if all(frozen.values()):
        raise VitportError("optimizer.frozen holds every parameter still: leave something to train.")
    return frozen


def _still(beginnings: tuple[str, ...], tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Path → whether it stays as it is, for each path that it stands for."""
    names = {path: single_paths(path, len(leaf) if path.startswith(STACKED) else 1) for path, leaf in tree.items()}
    frozen = frozen_paths(beginnings, dict.fromkeys(name for each in names.values() for name in each))
    return {path: np.array([frozen[name] for name in each]) for path, each in names.items()}


def trained(beginnings: tuple[str, ...], tree: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What does not stay as it is, of gradients or updates; frozen blocks among stacked ones are 0."""
    result = {}
    for path, still in _still(beginnings, tree).items():
        if not still.all():
            x = tree[path]
            result[path] = jnp.where(still.reshape(-1, *[1] * (x.ndim - 1)), 0, x) if still.any() else x  # stacked
    return result
