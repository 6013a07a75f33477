"""Scores of images with several labels each. Oracles: scikit-learn and PyTorch."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.training.evaluation.label_scores import LabelScores, average_precision
from vit_jax.training.evaluation.scores import judge
from vit_jax.training.recipe.recipe import Loss
from vit_jax.training.step.losses import soft_targets, total_loss
from vit_jax.training.step.update import is_right

metrics = pytest.importorskip("sklearn.metrics")


def _drawn(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, classes)) < rng.uniform(0.1, 0.7, classes)).astype(np.uint8)
    return labels, (rng.normal(size=(rows, classes)) + labels).astype(np.float32)


@pytest.mark.parametrize("decimals", [None, 0], ids=["distinct", "ties"])
def test_mean_average_precision_is_scikit_learns(decimals) -> None:
    labels, logits = _drawn(101, 7)
    if decimals is not None:
        logits = logits.round(decimals)
    labels[:, 3] = 0  # a class that no image has
    scores = LabelScores(7)
    for at in range(0, 101, 16):  # the last batch is padded with a row that does not count
        rows = slice(at, at + 16)
        padded = [np.concatenate([array[rows], np.ones((1, 7), array.dtype)]) for array in (logits, labels)]
        weight = np.append(np.ones(len(labels[rows]), np.float32), 0)
        scores.add(judge(*map(jnp.asarray, padded), jnp.asarray(weight)))
    there = [0, 1, 2, 4, 5, 6]
    each = metrics.average_precision_score(labels[:, there], logits[:, there], average=None)
    np.testing.assert_allclose(scores.per_class()[there], each, rtol=1e-12)  # measured 2e-16
    assert np.isnan(scores.per_class()[3])
    found = scores.metrics()
    assert scores.images == 101
    assert found["mean_average_precision"] == pytest.approx(each.mean(), rel=1e-12)
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, logits > 0, average="micro"), rel=1e-12)


def test_logits_that_are_certain_are_still_ordered() -> None:
    """In float32 the sigmoids of 20 and 40 are both 1."""
    labels, scores = np.array([0, 1, 0], bool), np.array([20, 40, 30], np.float32)
    assert average_precision(labels, scores) == 1
    assert np.isnan(average_precision(np.zeros(3, bool), scores))
    assert np.isnan(LabelScores(2).metrics()["mean_average_precision"])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_pytorchs(smoothing) -> None:
    torch = pytest.importorskip("torch")
    labels, logits = _drawn(9, 5, seed=1)
    targets = soft_targets(jnp.asarray(labels), 5, smoothing)
    found = total_loss(Loss("sigmoid", smoothing=smoothing), jnp.asarray(logits), targets, None)
    smooth = labels * (1 - smoothing) + smoothing / 2
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits).double(), torch.tensor(smooth), reduction="none"
    ).sum(1)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=2e-6)  # sums of 5 in float32; measured 2e-7
    scores = LabelScores(5)
    scores.add(judge(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(9)))
    if not smoothing:
        assert scores.metrics()["loss"] == pytest.approx(float(wanted.mean()), rel=2e-6)


def test_an_image_is_right_if_its_likeliest_class_is_among_its_labels() -> None:
    labels = np.array([[1, 0, 1], [1, 0, 1], [0, 0, 0]])
    logits = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 1.0], [1.0, 0.0, 0.0]])
    for smoothing in (0.0, 0.2):
        targets = soft_targets(jnp.asarray(labels), 3, smoothing)
        assert is_right(jnp.asarray(logits), targets, several=True).tolist() == [True, False, False]
