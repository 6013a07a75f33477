"""Mean average precision of a classifier that gives an image several labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def judge_labels(logits: jax.Array, label: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
    """What :meth:`LabelScores.add` counts; to be compiled.

    Args:
        logits: (B, K).
        label: (B, K) of 0 and 1.
        weight: (B,), 0 for rows that hold no image.
    """
    logits = logits.astype(jnp.float32)
    return {
        "label": label,
        "weight": weight,
        "logit": logits,  # sigmoids of the largest are all 1, and could not be ordered
        "loss": optax.sigmoid_binary_cross_entropy(logits, label.astype(jnp.float32)).sum(axis=-1),
    }


class LabelScores:
    """Labels and logits of the images so far; average precision needs the order of all of them.

    Args:
        classes: number of classes, K.
    """

    def __init__(self, classes: int) -> None:
        self._labels = [np.zeros((0, classes), bool)]
        self._logits = [np.zeros((0, classes), np.float32)]
        self._loss = 0.0

    def add(self, judged: Mapping[str, Any]) -> None:
        """Takes the rows of :func:`judge_labels` whose weight is not 0."""
        rows = {name: np.asarray(array) for name, array in judged.items()}
        real = rows["weight"] > 0
        self._labels.append(rows["label"][real] > 0)
        self._logits.append(rows["logit"][real])
        self._loss += float(rows["loss"][real].sum(dtype=np.float64))

    @property
    def images(self) -> int:
        """Number of images counted."""
        return sum(map(len, self._labels))

    def metrics(self) -> dict[str, float]:
        """The mean of :meth:`per_class`; F1 of all decisions at probability 1/2; the sum over classes of binary cross
        entropies in nats; NaN without images."""
        labels, chosen = np.concatenate(self._labels), np.concatenate(self._logits) > 0
        each = self.per_class()
        both, either = int((labels & chosen).sum()), int(labels.sum() + chosen.sum())
        return {
            "mean_average_precision": float(np.nanmean(each)) if np.isfinite(each).any() else float("nan"),
            "f1": 2 * both / either if either else float("nan"),
            "loss": self._loss / (self.images or float("nan")),
        }

    def per_class(self) -> np.ndarray:
        """(K,): average precision of each class, NaN where no image has it."""
        labels, logits = np.concatenate(self._labels), np.concatenate(self._logits)
        return np.array([average_precision(*pair) for pair in zip(labels.T, logits.T, strict=True)])


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """The mean over positive images of the precision among all images that score as much or more, without the
    interpolation of PASCAL VOC; NaN without positive images.

    Args:
        labels: (n,) booleans.
        scores: (n,), of any scale; equal ones are one threshold.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each group of equals
    if not len(scores) or not hits[-1]:
        return float("nan")
    found = hits[last]
    return float((np.diff(found, prepend=0) * (found / (last + 1))).sum() / hits[-1])
