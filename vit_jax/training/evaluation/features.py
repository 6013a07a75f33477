"""What a frozen model's features are worth: nearest neighbours and a linear probe."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

import vit_jax
from conversion import Checkpoint
from vit_jax.inference.inference import Inference
from vit_jax.inference.slices import sliced
from vit_jax.inference.spread import Spread
from vit_jax.layers.attention import attend_fused, set_attention
from vit_jax.params import get_params
from vit_jax.training.data import Source, evaluation_batches
from vit_jax.training.step.update import normalised
from vit_spec import VitportError

TEMPERATURE = 0.07
"""Of the neighbours' votes, as in DINO (Caron et al. 2021, section 4.2)."""
_ROWS = 1024
"""Pictures whose similarities are computed at once."""


@dataclass(frozen=True)
class Features:
    """Pooled features of a set of pictures."""

    values: np.ndarray
    """(pictures, D), float32."""
    labels: np.ndarray
    """(pictures,)."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Pictures that could not be read, with the reasons."""


def read_features(checkpoint: Checkpoint, source: Source, *, batch: int, workers: int = 0) -> Features:
    """What the model's head would be given, of every picture that can be read.

    Args:
        checkpoint: with or without a head.
    """
    import conversion

    body = conversion.prepare(None, weights=checkpoint, num_classes=0)
    model = vit_jax.create_model(weights=body)
    set_attention(model, attend_fused)
    inference = sliced(Inference(model))
    spread = Spread(
        lambda params, images: inference(params, normalised(images, body.preprocessing)), get_params(model), batch
    )
    values, labels = [], []
    with evaluation_batches(source, body.preprocessing, batch=batch, workers=workers) as batches:
        for rows in batches:
            real = rows["weight"] > 0
            values.append(np.asarray(spread(rows["image"]))[real])
            labels.append(rows["label"][real])
        skipped = dict(batches.corrupt)
    return Features(np.concatenate(values), np.concatenate(labels), skipped)


def nearest_neighbours(train: Features, test: Features, classes: int, k: int = 20) -> float:
    """Accuracy of a vote of the ``k`` nearest training pictures by cosine, each weighing ``exp(cosine / 0.07)``.

    Raises:
        VitportError: if there are fewer training pictures.
    """
    if not 1 <= k <= len(train.values):
        raise VitportError(f"--knn {k} takes 1 to {len(train.values)} neighbours, as many as there are pictures.")
    known = _unit(train.values)
    right = 0
    for first in range(0, len(test.values), _ROWS):
        similar = _unit(test.values[first : first + _ROWS]) @ known.T  # (rows, training pictures)
        near = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        weight = np.exp(np.take_along_axis(similar, near, axis=1).astype(np.float64) / TEMPERATURE)
        votes = np.zeros((len(similar), classes))
        np.add.at(votes, (np.arange(len(similar))[:, None], train.labels[near]), weight)
        right += int((votes.argmax(axis=1) == test.labels[first : first + _ROWS]).sum())
    return right / len(test.values)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def linear_probe(train: Features, test: Features, classes: int, decay: float = 1e-4) -> float:
    """Accuracy of multinomial logistic regression on standardised features, fitted by L-BFGS in float64.

    Args:
        decay: of the weights; the mean cross entropy + ``decay / 2`` times their squared norm is minimised.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    mean, deviation = train.values.mean(axis=0), np.maximum(train.values.std(axis=0), 1e-6)
    x, y = ((train.values - mean) / deviation).astype(np.float64), train.labels
    D = x.shape[1]
    own = (np.arange(len(y)), y)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[: D * classes].reshape(D, classes), flat[D * classes :]
        logits = x @ weight + bias
        chances = logits - logsumexp(logits, axis=1, keepdims=True)
        value = -chances[own].mean() + decay / 2 * (weight**2).sum()
        error = np.exp(chances)
        error[own] -= 1
        error /= len(y)
        return value, np.concatenate([(x.T @ error + decay * weight).ravel(), error.sum(axis=0)])

    found = minimize(loss, np.zeros((D + 1) * classes), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    logits = (test.values - mean) / deviation @ found[: D * classes].reshape(D, classes) + found[D * classes :]
    return float((logits.argmax(axis=1) == test.labels).mean())
