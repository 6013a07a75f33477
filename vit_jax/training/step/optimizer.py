"""Optimizers and schedules of optax as recipes name them, over parameters as :func:`vit_jax.get_params` gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from vit_jax.params import parameters_by_path
from vit_jax.training.recipe.recipe import BACKBONE, Optimizer, Schedule
from vit_jax.training.step.stacked import block_by_block, each_block, is_stacked, parameter_at, single_paths
from vit_spec import Config, Parameter, Stage, VitportError, count_blocks, segments


def make_schedule(options: Schedule, steps: int) -> optax.Schedule:
    """Step number → learning rate.

    Raises:
        VitportError: if warm-up and cool-down are longer than the run, or the peak is left open.
    """
    if options.peak is None:
        raise VitportError("schedule.peak=None leaves the learning rate to `vitport train`: give a number.")
    warmup = int(options.warmup) if options.warmup >= 1 else int(options.warmup * steps)
    middle = steps - warmup - options.cooldown
    if middle < 0:
        raise VitportError(
            f"schedule.warmup={options.warmup} and cooldown={options.cooldown} are longer than the {steps} steps: "
            "train longer, or shorten them."
        )
    rise = optax.linear_schedule(0.0, options.peak, warmup)
    body = _body(options, options.peak, max(middle, 1))
    if options.cooldown:
        last = body(middle)
        body = optax.join_schedules(
            [body, optax.linear_schedule(float(np.asarray(last)), 0.0, options.cooldown)], [middle]
        )
    return optax.join_schedules([rise, body], [warmup]) if warmup else body


def _body(options: Schedule, peak: float, steps: int) -> optax.Schedule:
    if options.name == "cosine":
        return optax.cosine_decay_schedule(peak, steps, alpha=options.final / peak)
    if options.name == "linear":
        return optax.linear_schedule(peak, options.final, steps)
    if options.name == "rsqrt":
        scale = float(options.timescale)
        return lambda step: peak * jnp.sqrt(scale / jnp.maximum(jnp.asarray(step, jnp.float32), scale))
    return optax.constant_schedule(peak)


def make_optimizer(options: Optimizer, schedule: optax.Schedule, config: Config) -> optax.GradientTransformation:
    """The chain: clip, precondition, decay weights, scale by layer, times the learning rate.

    ``init`` takes the parameters of single blocks. ``update`` also takes stacked blocks
    (:mod:`vit_jax.training.step.stacked`), with a state stacked alike.

    Args:
        config: of the model that is trained.

    Raises:
        VitportError: if ``frozen`` matches no parameter, or all of them.
    """
    runs = segments(config)

    def decayed(tree: Mapping[str, Any]) -> dict[str, bool]:
        return {path: parameter_at(path, config).decays for path in tree}

    steps = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm is not None else []
    steps.append(_direction(options, config))
    if options.weight_decay:
        steps.append(block_by_block(optax.add_decayed_weights(options.weight_decay, mask=decayed), runs))
    if options.name == "lamb":
        steps.append(optax.masked(each_block(optax.scale_by_trust_ratio()), decayed))
    if options.layer_decay != 1.0 or options.head_factor != 1.0:
        steps.append(_scaled_by_layer(options, config))
    steps.append(block_by_block(optax.scale_by_learning_rate(schedule), runs))
    chain = optax.chain(*steps)
    frozen = frozen_paths(options.frozen, config)
    if not any(frozen.values()):
        return chain

    def labels(tree: Mapping[str, Any]) -> dict[str, str]:
        return {path: "frozen" if still.all() else "trained" for path, still in _still(frozen, tree).items()}

    return optax.partition({"trained": chain, "frozen": optax.set_to_zero()}, labels)


def _direction(options: Optimizer, config: Config) -> optax.GradientTransformation:
    o, runs = options, segments(config)
    if o.name in ("adamw", "lamb"):
        return block_by_block(optax.scale_by_adam(o.beta1, o.beta2, o.epsilon), runs)
    if o.name == "sgd":
        return block_by_block(optax.trace(o.beta1), runs) if o.beta1 else optax.identity()
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
        known = {path: parameter_at(path, config) for path in tree}
        return {path: "muon" if it.is_kernel and it.segment is not None else "adam" for path, it in known.items()}

    return optax.partition({"muon": each_block(muon), "adam": optax.scale_by_adam(o.beta1, o.beta2, o.epsilon)}, hidden)


def _capped(beta2: float) -> Callable[[Any, Any], jax.Array]:
    """Shazeer & Stern 2018, section 7.2, ``1 - (step + 1) ** -rate``, at most ``beta2``."""
    return lambda step, rate: jnp.minimum(1.0 - (jnp.asarray(step, jnp.float32) + 1.0) ** -rate, beta2)


def _matrices(updates: Any) -> Any:
    """For Muon: every array is a matrix (in, out); masked leaves stay masked."""
    return jax.tree.map(lambda x: contrib.MuonDimensionNumbers(), updates)


def _by_shape(updates: Any, params: Any) -> Any:
    """Orthogonal steps of kernels (in, out) times ``sqrt(max(1, out / in))`` (Jordan et al. 2024, Muon)."""
    del params
    return jax.tree.map(lambda x: x * max(1.0, x.shape[1] / x.shape[0]) ** 0.5, updates)


def _scaled_by_layer(options: Optimizer, config: Config) -> optax.GradientTransformation:
    last = count_blocks(config) + 1

    def factor(it: Parameter) -> float:
        own = options.layer_decay ** (last - it.layer)
        return own * options.head_factor if it.stage is Stage.CLASSIFIER else own

    factors = {path: factor(it) for path, it in parameters_by_path(config).items()}

    def scale(path: str, x: jax.Array) -> jax.Array:
        own = jnp.array([factors[name] for name in single_paths(path, _blocks(path, x))], x.dtype)
        return x * own.reshape(-1, *[1] * (x.ndim - 1) if is_stacked(path) else [])

    def scaled(updates: Any, params: Any) -> Any:
        del params
        # optax masks frozen leaves; they have no array here.
        return {path: scale(path, x) if isinstance(x, jax.Array) else x for path, x in updates.items()}

    return optax.stateless(scaled)


def frozen_paths(patterns: tuple[str, ...], config: Config) -> dict[str, bool]:
    """Path → whether the parameter is frozen, for every parameter of the model.

    Args:
        patterns: see :attr:`vit_jax.training.recipe.recipe.Optimizer.frozen`.

    Raises:
        VitportError: if a pattern matches no parameter, or nothing is left to train.
    """
    known = parameters_by_path(config)
    frozen = dict.fromkeys(known, False)
    for pattern in patterns:
        found = [path for path, it in known.items() if _matches(pattern, it)]
        if not found:
            raise VitportError(
                f"optimizer.frozen={pattern!r} matches no parameter: give {BACKBONE}, the beginning of a path, such as "
                f"{min(known)}, or a pattern, such as */bias."
            )
        frozen |= dict.fromkeys(found, True)
    if all(frozen.values()):
        raise VitportError(f"optimizer.frozen={patterns} freezes every parameter: leave something to train.")
    return frozen


def _matches(pattern: str, parameter: Parameter) -> bool:
    if pattern == BACKBONE:
        return parameter.stage is not Stage.CLASSIFIER
    start = pattern.replace(".", "/").rstrip("/")
    names = (parameter.path, parameter.name.replace(".", "/"))
    return any(fnmatchcase(name, start) or fnmatchcase(name, f"{start}/*") for name in names)


def _blocks(path: str, leaf: Any) -> int:
    """Number of blocks that a leaf holds."""
    return len(leaf) if is_stacked(path) else 1


def _still(frozen: Mapping[str, bool], tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Path → whether it is frozen, for each of its blocks."""
    names = {path: single_paths(path, _blocks(path, leaf)) for path, leaf in tree.items()}
    return {path: np.array([frozen[name] for name in each]) for path, each in names.items()}


def trained(frozen: Mapping[str, bool], tree: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The arrays that training changes: of stacked blocks all, if any of them is trained.

    Args:
        frozen: of :func:`frozen_paths`.
    """
    return {path: tree[path] for path, still in _still(frozen, tree).items() if not still.all()}


def moving(frozen: Mapping[str, bool], tree: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Gradients or updates of what :func:`trained` gives, in which frozen blocks among stacked ones are 0."""
    result = {}
    for path, still in _still(frozen, tree).items():
        if not still.all():
            x = tree[path]
            result[path] = jnp.where(still.reshape(-1, *[1] * (x.ndim - 1)), 0, x) if still.any() else x  # stacked
    return result
