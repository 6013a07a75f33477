"""Evaluates the features of a frozen model: nearest neighbours and a linear probe."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from conversion import Checkpoint
from vit_jax.inference import compile_inference
from vit_jax.training.data import Source, evaluation_batches
from vit_jax.training.recipe.execution import Precision
from vit_spec import VitportError

TEMPERATURE = 0.07
"""Temperature of the neighbours' votes, as in DINO (Caron et al. 2021, section 4.2)."""
_ROWS = 1024
"""Images whose similarities are computed at a time."""


@dataclass(frozen=True)
class Features:
    """Pooled features of a set of images."""

    values: np.ndarray
    """(images, D), float32."""
    labels: np.ndarray
    """(images,)."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Images that could not be read, with the reasons."""


def read_features(
    checkpoint: Checkpoint, source: Source, *, batch: int, workers: int = 0, precision: Precision = "float32"
) -> Features:
    """The inputs of the model's head for every image that can be read.

    Args:
        checkpoint: with or without a head.
        batch: images at a time.
        workers: processes that decode; 0: threads.
        precision: of the computation.
    """
    import conversion

    body = conversion.prepare(None, weights=checkpoint, num_classes=0)
    forward = compile_inference(body, batch, dtype=precision)
    values, labels = [], []
    with evaluation_batches(source, body.preprocessing, batch=batch, workers=workers) as batches:
        for rows in batches:
            real = rows["weight"] > 0
            values.append(np.asarray(forward(rows["image"]), np.float32)[real])
            labels.append(rows["label"][real])
        skipped = dict(batches.corrupt)
    return Features(np.concatenate(values), np.concatenate(labels), skipped)


def nearest_neighbours(train: Features, test: Features, classes: int, k: int = 20) -> float:
    """Accuracy of a vote of the ``k`` training images nearest by cosine, each with weight ``exp(cosine / 0.07)``.

    Raises:
        VitportError: if there are fewer training images.
    """
    if not 1 <= k <= len(train.values):
        raise VitportError(f"--knn must be from 1 to {len(train.values)}, the number of training images; got {k}.")
    known = _unit(train.values)
    correct = 0
    for first in range(0, len(test.values), _ROWS):
        similar = _unit(test.values[first : first + _ROWS]) @ known.T  # (rows, training images)
        near = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        weight = np.exp(np.take_along_axis(similar, near, axis=1).astype(np.float64) / TEMPERATURE)
        votes = np.zeros((len(similar), classes))
        np.add.at(votes, (np.arange(len(similar))[:, None], train.labels[near]), weight)
        correct += int((votes.argmax(axis=1) == test.labels[first : first + _ROWS]).sum())
    return correct / len(test.values)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def linear_probe(train: Features, test: Features, classes: int, decay: float = 1e-4) -> float:
    """Accuracy of multinomial logistic regression on standardised features, fitted by L-BFGS in float64.

    Args:
        decay: weight decay; minimises the mean cross entropy + ``decay / 2`` times the squared norm of the weights.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    mean, std = train.values.mean(axis=0), np.maximum(train.values.std(axis=0), 1e-6)
    x, y = ((train.values - mean) / std).astype(np.float64), train.labels
    D = x.shape[1]
    own = (np.arange(len(y)), y)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[: D * classes].reshape(D, classes), flat[D * classes :]
        logits = x @ weight + bias
        log_probability = logits - logsumexp(logits, axis=1, keepdims=True)
        value = -log_probability[own].mean() + decay / 2 * (weight**2).sum()
        error = np.exp(log_probability)
        error[own] -= 1
        error /= len(y)
        return value, np.concatenate([(x.T @ error + decay * weight).ravel(), error.sum(axis=0)])

    found = minimize(loss, np.zeros((D + 1) * classes), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    logits = (test.values - mean) / std @ found[: D * classes].reshape(D, classes) + found[D * classes :]
    return float((logits.argmax(axis=1) == test.labels).mean())
