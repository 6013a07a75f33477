"""Both frameworks trained side by side from the same weights on the same batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vit_parity.frameworks import jax_dtype, jax_model, jax_params, torch_array, torch_model
from vit_parity.measure import relative
from vit_parity.seeded import seeded
from vit_spec import Config, VitportError

if TYPE_CHECKING:
    from conversion import Checkpoint

Optimizer = Literal["adamw", "sgd"]
Batch = tuple[np.ndarray, np.ndarray]
"""Images (B, H, W, C), preprocessed, and integer labels (B,)."""

LEARNING_RATE = {"adamw": 1e-3, "sgd": 1e-2}
BETAS, EPSILON, WEIGHT_DECAY, MOMENTUM = (0.9, 0.999), 1e-8, 0.05, 0.9


@dataclass(frozen=True)
class Step:
    """Both models after one step."""

    loss_torch: float
    """Mean cross-entropy before the step."""
    loss_jax: float
    distance: float
    """Relative L2 distance of all parameters after the step, as one vector; JAX from PyTorch."""

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return asdict(self)


def random_batches(config: Config, count: int, size: int = 4, seed: int = 0) -> list[Batch]:
    """Standard normal images with random labels; two batches alternate, so the loss falls.

    Args:
        config: of a classifier.
        count: number of steps.
        size: images in a batch.
        seed: of the numbers.
    """
    rng = seeded(seed)
    shape = (size, *config.image_size, config.in_channels)
    both = [(rng.standard_normal(shape), rng.integers(config.num_classes, size=size)) for _ in range(2)]
    return [both[at % 2] for at in range(count)]


def compare_training(
    checkpoint: Checkpoint, batches: Sequence[Batch], optimizer: Optimizer = "adamw", dtype: str = "float32"
) -> list[Step]:
    """One step on each batch, with ``torch.optim`` and ``optax``; dropout and stochastic depth off.

    AdamW (Loshchilov & Hutter 2019) decays every parameter by 0.05; SGD has momentum 0.9.

    Args:
        checkpoint: a classifier.
        batches: one for each step.
        optimizer: with the settings at the top of this module.
        dtype: of both models, their parameters and the optimizer's state.

    Raises:
        VitportError: for a model without classes, or where optax is missing.
    """
    if not checkpoint.config.num_classes:
        raise VitportError(
            "Training needs a classifier, but these weights have no head (num_classes=0): give weights with one."
        )
    try:
        import optax  # noqa: F401
    except ImportError as error:
        raise VitportError("Training in JAX needs optax: pip install 'vitport[train]'.") from error
    ours = _torch_steps(checkpoint, batches, optimizer, dtype)
    theirs = _jax_steps(checkpoint, batches, optimizer, dtype)
    steps = []
    for (loss_torch, a), (loss_jax, b) in zip(ours, theirs, strict=True):
        names = sorted(a)
        whole = [np.concatenate([params[name].ravel().astype(np.float64) for name in names]) for params in (b, a)]
        steps.append(Step(loss_torch, loss_jax, relative(*whole)))
    return steps


def _torch_steps(
    checkpoint: Checkpoint, batches: Sequence[Batch], optimizer: Optimizer, dtype: str
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    import torch

    kind = getattr(torch, dtype)
    model = torch_model(checkpoint, dtype)
    rate = LEARNING_RATE[optimizer]
    if optimizer == "adamw":
        rule: Any = torch.optim.AdamW(model.parameters(), rate, BETAS, EPSILON, WEIGHT_DECAY)
    else:
        rule = torch.optim.SGD(model.parameters(), rate, MOMENTUM)
    for images, labels in batches:
        logits: Any = model(torch.tensor(images, dtype=kind).permute(0, 3, 1, 2))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
        rule.zero_grad()
        loss.backward()
        rule.step()
        yield float(loss.detach()), {name: torch_array(value).copy() for name, value in model.state_dict().items()}


def _jax_steps(
    checkpoint: Checkpoint, batches: Sequence[Batch], optimizer: Optimizer, dtype: str
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    rate = LEARNING_RATE[optimizer]
    if optimizer == "adamw":
        rule = optax.adamw(rate, *BETAS, EPSILON, weight_decay=WEIGHT_DECAY)
    else:
        rule = optax.sgd(rate, MOMENTUM)
    with jax_dtype(dtype), jax.default_matmul_precision("highest"):
        graph, state = nnx.split(jax_model(checkpoint, dtype))
        memory = rule.init(state)

        def loss_of(state: Any, images: Any, labels: Any) -> Any:
            logits: Any = nnx.merge(graph, state)(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        @jax.jit
        def step(state: Any, memory: Any, images: Any, labels: Any) -> tuple[Any, Any, Any]:
            loss, gradients = jax.value_and_grad(loss_of)(state, images, labels)
            updates, memory = rule.update(gradients, memory, state)
            return loss, optax.apply_updates(state, updates), memory

    for images, labels in batches:
        with jax_dtype(dtype), jax.default_matmul_precision("highest"):
            loss, state, memory = step(state, memory, jnp.asarray(images, dtype), jnp.asarray(labels))
        yield float(loss), jax_params(state)
