"""Losses on soft targets, and mixup and CutMix, which make them. All of it runs inside the compiled step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from vit_jax.training.recipe.recipe import Loss
from vit_spec import VitportError

Logits = jax.Array | tuple[jax.Array, jax.Array]


def soft_targets(labels: jax.Array, classes: int, smoothing: float) -> jax.Array:
    """(B,) integers -> (B, K), each row summing to 1; or (B, K) of 0 and 1 for several labels an image, of which
    smoothing brings each nearer to 1/2, as in Keras' ``BinaryCrossentropy``."""
    if labels.ndim == 2:
        return labels.astype(jnp.float32) * (1 - smoothing) + smoothing / 2
    return optax.smooth_labels(jax.nn.one_hot(labels, classes), smoothing)


def classification_loss(options: Loss, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """(B, K), (B, K) -> (B,), in at least float32."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    weights = _class_weights(options, logits)
    if options.name == "softmax":
        return optax.softmax_cross_entropy(logits, targets * weights)
    if options.binary:
        targets = (targets > 0).astype(targets.dtype)
    return (optax.sigmoid_binary_cross_entropy(logits, targets) * weights).sum(axis=-1)


def _class_weights(options: Loss, logits: jax.Array) -> jax.Array:
    if options.class_weights == "none":
        return jnp.ones((), logits.dtype)
    if isinstance(options.class_weights, str):
        raise VitportError("loss.class_weights=balanced leaves the numbers to `vitport train`: give numbers.")
    return jnp.asarray(options.class_weights, logits.dtype)


def distillation_loss(options: Loss, logits: jax.Array, teacher: jax.Array) -> jax.Array:
    """(B, K), (B, K) -> (B,): equations 2 and 3 of Touvron et al. 2021."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if options.distillation == "hard":
        return optax.softmax_cross_entropy_with_integer_labels(logits, teacher.argmax(axis=-1))
    t = options.temperature
    log_student, log_teacher = (jax.nn.log_softmax(x / t, axis=-1) for x in (logits, teacher))
    return t**2 * jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1)


def total_loss(options: Loss, logits: Logits, targets: jax.Array, teacher: jax.Array | None) -> jax.Array:
    """The loss (B,) of a model's logits in training mode.

    Args:
        logits: (B, K), or those of class token and distillation token.
        targets: (B, K).
        teacher: the teacher's logits (B, K), if there is one.

    Raises:
        VitportError: for distillation without a teacher.
    """
    head, dist = logits if isinstance(logits, tuple) else (logits, logits)
    own = classification_loss(options, head, targets)
    if options.distillation == "none":
        # A distilled model without a teacher trains both heads on the labels.
        return (own + classification_loss(options, dist, targets)) / 2 if isinstance(logits, tuple) else own
    if teacher is None:
        raise VitportError(f"loss.distillation={options.distillation!r} needs a teacher: give teacher.weights.")
    weight = options.distillation_weight
    return (1 - weight) * own + weight * distillation_loss(options, dist, teacher)


def mix(options: Loss, images: jax.Array, targets: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mixup, CutMix, or one of the two with equal probability; each image is mixed with the batch's reverse.

    Call it only for options that mix (``Loss.mixes``).

    Args:
        images: (B, H, W, C).
        targets: (B, K).
        key: of the step.
    """
    coin, up, cut = jax.random.split(key, 3)
    if options.mixup and options.cutmix:
        return jax.lax.cond(
            jax.random.bernoulli(coin),
            lambda: _mixup(options.mixup, images, targets, up),
            lambda: _cutmix(options.cutmix, images, targets, cut),
        )
    return (
        _mixup(options.mixup, images, targets, up) if options.mixup else _cutmix(options.cutmix, images, targets, cut)
    )


def _mixup(alpha: float, images: jax.Array, targets: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Equation 1 of Zhang et al. 2018, with one weight for the batch."""
    share = jax.random.beta(key, alpha, alpha).astype(images.dtype)
    return share * images + (1 - share) * images[::-1], share * targets + (1 - share) * targets[::-1]


def _cutmix(alpha: float, images: jax.Array, targets: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Section 3.1 of Yun et al. 2019: one box for the batch; targets are weighted by the area that it covers."""
    H, W = images.shape[1:3]
    of_share, of_row, of_column = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(of_share, alpha, alpha))
    rows = _span(H, side, jax.random.uniform(of_row))
    columns = _span(W, side, jax.random.uniform(of_column))
    box = rows[:, None] & columns[None, :]  # (H, W)
    kept = 1 - box.mean().astype(targets.dtype)
    mixed = jnp.where(box[None, :, :, None], images[::-1], images)
    return mixed, kept * targets + (1 - kept) * targets[::-1]


def _span(length: int, share: jax.Array, centre: jax.Array) -> jax.Array:
    """Which of ``length`` pixels lie within ``share`` of the length around a centre in [0, 1)."""
    places = jnp.arange(length) + 0.5
    return jnp.abs(places - centre * length) < share * length / 2
