"""How right a classifier is: accuracy, calibration and confusion, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.pure import Params
from vit_jax.training.step.update import Batch, normalised
from vit_spec import Preprocessing

BINS = 15
"""Of confidence, in the calibration error (Guo et al. 2017, section 2)."""


def make_judge(
    inference: Callable[[Params, jax.Array], jax.Array], preprocessing: Preprocessing
) -> Callable[[Params, Batch], dict[str, jax.Array]]:
    """A function of parameters and a batch, to be compiled, for :meth:`Scores.add`: (B,) of everything.

    Args:
        inference: from parameters and pictures (B, H, W, C) to logits (B, K).
        preprocessing: how the batch's pictures are normalised.
    """

    def judge(params: Params, batch: Batch) -> dict[str, jax.Array]:
        logits = inference(params, normalised(batch["image"], preprocessing)).astype(jnp.float32)
        chances = jax.nn.log_softmax(logits, axis=-1)
        label = batch["label"]
        own = jnp.take_along_axis(chances, label[:, None], axis=-1)[:, 0]
        _, first = jax.lax.top_k(logits, min(5, logits.shape[-1]))
        return {
            "label": label,
            "weight": batch["weight"],
            "predicted": first[:, 0],
            "confidence": jnp.exp(chances.max(axis=-1)),
            "among_five": (first == label[:, None]).any(axis=-1),
            "loss": -own,
        }

    return judge


class Scores:
    """Sums over the pictures so far.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        """(K, K): row the label, column the prediction."""
        self._among_five = 0
        self._loss = 0.0
        self._bins = np.zeros((BINS, 3))  # pictures, their confidence, how many are right

    def add(self, judged: Mapping[str, Any]) -> None:
        """Counts a judged batch; rows of weight 0 are none."""
        rows = {name: np.asarray(array) for name, array in judged.items()}
        real = rows.pop("weight") > 0
        label, predicted, confidence, among_five, loss = (
            rows[name][real] for name in ("label", "predicted", "confidence", "among_five", "loss")
        )
        np.add.at(self.confusion, (label, predicted), 1)
        self._among_five += int(among_five.sum())
        self._loss += float(loss.sum(dtype=np.float64))
        # Bins are open below and closed above, so that a confidence of 1 is in the last.
        at = np.clip(np.ceil(np.nan_to_num(confidence) * BINS).astype(int) - 1, 0, BINS - 1)
        np.add.at(self._bins, at, np.stack([np.ones(len(at)), confidence, label == predicted], axis=1))

    @property
    def pictures(self) -> int:
        return int(self.confusion.sum())

    def metrics(self) -> dict[str, float]:
        """Shares of the pictures, cross entropy in nats, and the expected calibration error; NaN of no pictures."""
        total = self.pictures or float("nan")
        return {
            "accuracy": float(np.trace(self.confusion) / total),
            "accuracy_top5": self._among_five / total,
            "loss": self._loss / total,
            "calibration_error": float(np.abs(self._bins[:, 2] - self._bins[:, 1]).sum() / total),
        }

    def per_class(self) -> np.ndarray:
        """(K,): accuracy on the pictures of each class, NaN where there are none."""
        pictures = self.confusion.sum(axis=1)
        return np.divide(np.diagonal(self.confusion), pictures, out=np.full(len(pictures), np.nan), where=pictures > 0)
