"""Accuracy, calibration error and confusion matrix of a classifier, summed batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.training.evaluation.label_scores import LabelScores, judge_labels

BINS = 15
"""Bins of confidence in the calibration error (Guo et al. 2017, section 2)."""


def judge(logits: jax.Array, label: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
    """What :meth:`Scores.add` counts, (B,) each; to be compiled. For several labels an image, :func:`judge_labels`.

    Args:
        logits: (B, K).
        label: (B,) integers; or (B, K) of 0 and 1.
        weight: (B,), 0 for rows that hold no image.
    """
    if label.ndim == 2:
        return judge_labels(logits, label, weight)
    logits = logits.astype(jnp.float32)
    log_probability = jax.nn.log_softmax(logits, axis=-1)
    _, first = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    return {
        "label": label,
        "weight": weight,
        "predicted": first[:, 0],
        "confidence": jnp.exp(log_probability.max(axis=-1)),
        "among_five": (first == label[:, None]).any(axis=-1),
        "loss": -jnp.take_along_axis(log_probability, label[:, None], axis=-1)[:, 0],
    }


AnyScores: TypeAlias = "Scores | LabelScores"
"""Of images of one label each, or of several."""


def main_metric(metrics: Mapping[str, float]) -> tuple[str, float]:
    """Name and value of the metric by which checkpoints are compared: accuracy, or mean average precision.

    Raises:
        KeyError: if it has neither.
    """
    name = "accuracy" if "accuracy" in metrics else "mean_average_precision"
    return name, metrics[name]


def new_scores(classes: int, *, several: bool) -> AnyScores:
    """Nothing counted yet.

    Args:
        several: whether an image may have several labels.
    """
    return LabelScores(classes) if several else Scores(classes)


class Scores:
    """Sums over the images so far.

    Args:
        classes: number of classes, K.
    """

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        """(K, K): row the label, column the prediction."""
        self._among_five = 0
        self._loss = 0.0
        self._bins = np.zeros((BINS, 3))  # images, sum of confidences, correct images

    def add(self, judged: Mapping[str, Any]) -> None:
        """Counts the rows of :func:`judge` whose weight is not 0."""
        rows = {name: np.asarray(array) for name, array in judged.items()}
        real = rows.pop("weight") > 0
        label, predicted, confidence, among_five, loss = (
            rows[name][real] for name in ("label", "predicted", "confidence", "among_five", "loss")
        )
        np.add.at(self.confusion, (label, predicted), 1)
        self._among_five += int(among_five.sum())
        self._loss += float(loss.sum(dtype=np.float64))
        # Bins are open below and closed above, so the last includes a confidence of 1.
        at = np.clip(np.ceil(np.nan_to_num(confidence) * BINS).astype(int) - 1, 0, BINS - 1)
        np.add.at(self._bins, at, np.stack([np.ones(len(at)), confidence, label == predicted], axis=1))

    @property
    def images(self) -> int:
        """Number of images counted."""
        return int(self.confusion.sum())

    def metrics(self) -> dict[str, float]:
        """Accuracies, cross entropy in nats, and the expected calibration error; NaN without images."""
        total = self.images or float("nan")
        return {
            "accuracy": float(np.trace(self.confusion) / total),
            "accuracy_top5": self._among_five / total,
            "loss": self._loss / total,
            "calibration_error": float(np.abs(self._bins[:, 2] - self._bins[:, 1]).sum() / total),
        }

    def per_class(self) -> np.ndarray:
        """(K,): accuracy on the images of each class, NaN where there are none."""
        images = self.confusion.sum(axis=1)
        return np.divide(np.diagonal(self.confusion), images, out=np.full(len(images), np.nan), where=images > 0)
