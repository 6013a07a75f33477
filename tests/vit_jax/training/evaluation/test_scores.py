"""Accuracy, calibration and confusion. Oracles: scikit-learn, and the calibration error's definition in plain loops."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

import vit_jax
from vit_jax.inference.inference import Inference
from vit_jax.training.evaluation.features import Features, linear_probe, nearest_neighbours
from vit_jax.training.evaluation.scores import BINS, Scores, judge
from vit_spec import ViTConfig, VitportError

pytestmark = pytest.mark.jax_alone

CONFIG = ViTConfig(image_size=8, patch_size=4, num_classes=7, embed_dim=16, depth=1, num_heads=2)


@pytest.fixture(scope="module")
def judged() -> tuple[Scores, np.ndarray, np.ndarray]:
    """Scores of three batches of which the last is filled up, the logits of the real images, and their labels."""
    model = vit_jax.create_model(CONFIG)
    params = vit_jax.get_params(model)
    rng = np.random.default_rng(0)
    params = {path: array + rng.normal(0, 0.3, array.shape).astype(np.float32) for path, array in params.items()}
    inference = Inference(model)
    scores, logits, labels = Scores(7), [], []
    for real in (16, 16, 5):
        images = rng.standard_normal((16, 8, 8, 3)).astype(np.float32)
        label = rng.integers(0, 7, 16).astype(np.int32)
        weight = (np.arange(16) < real).astype(np.float32)
        found = inference(params, images)
        scores.add(judge(found, jnp.asarray(label), jnp.asarray(weight)))
        logits.append(np.asarray(found, np.float64)[:real])
        labels.append(label[:real])
    return scores, np.concatenate(logits), np.concatenate(labels)


def _chances(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_scores_are_those_of_scikit_learn(judged) -> None:
    scores, logits, labels = judged
    metrics, classes = scores.metrics(), np.arange(7)
    assert scores.images == 37
    assert 0.02 < metrics["accuracy"] < 0.6 < metrics["accuracy_top5"] < 1  # neither is trivial
    np.testing.assert_array_equal(scores.confusion, confusion_matrix(labels, logits.argmax(axis=1), labels=classes))
    assert metrics["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean(), abs=1e-12)
    assert metrics["accuracy_top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=classes))
    # float32 sums of 7 terms: measured 4e-8
    assert metrics["loss"] == pytest.approx(log_loss(labels, _chances(logits), labels=classes), rel=1e-6)


def test_the_calibration_error_is_its_definition(judged) -> None:
    scores, logits, labels = judged
    chances = _chances(logits)
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    error = 0.0
    for at in range(BINS):
        inside = (confidence > at / BINS) & (confidence <= (at + 1) / BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert error > 0.05
    assert scores.metrics()["calibration_error"] == pytest.approx(error, abs=1e-6)


def test_accuracy_by_class_is_nan_where_there_is_no_image() -> None:
    scores = Scores(3)
    ones = np.ones(3)
    scores.add({"label": np.array([0, 0, 2]), "weight": ones, "predicted": np.array([0, 1, 2]), "confidence": ones,
                "among_five": ones, "loss": ones})  # fmt: skip
    np.testing.assert_array_equal(scores.per_class(), [0.5, np.nan, 1.0])


def _blobs(seed: int, images: int) -> Features:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(0, 1, (4, 6))
    labels = rng.integers(0, 4, images)
    return Features((centres[labels] + rng.normal(0, 1.2, (images, 6))).astype(np.float32), labels)


def test_neighbours_vote_as_scikit_learns_do() -> None:
    train, test = _blobs(0, 300), _blobs(1, 200)
    oracle = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = oracle.fit(train.values, train.labels).score(test.values, test.labels)
    assert 0.4 < expected < 0.95
    assert nearest_neighbours(train, test, 4, 20) == expected


def test_the_probe_is_scikit_learns_logistic_regression() -> None:
    train, test = _blobs(0, 300), _blobs(1, 2000)
    mean, deviation = train.values.mean(axis=0), train.values.std(axis=0)
    oracle = LogisticRegression(C=1 / (1e-2 * 300), tol=1e-10, max_iter=10_000)
    oracle.fit((train.values - mean) / deviation, train.labels)
    expected = oracle.score((test.values - mean) / deviation, test.labels)
    assert 0.4 < expected < 0.95
    assert linear_probe(train, test, 4, decay=1e-2) == pytest.approx(expected, abs=2 / 2000)  # ties by rounding


def test_more_neighbours_than_images_are_refused() -> None:
    with pytest.raises(VitportError, match="--knn must be from 1 to 10, the number of training images; got 11"):
        nearest_neighbours(_blobs(0, 10), _blobs(1, 5), 4, 11)
