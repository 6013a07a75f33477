"""Gradients and training side by side; the oracles are difference quotients in float64 and rules worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vit_parity.training
import vit_torch
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.small_configs import COMBINATIONS
from tests.vit_parity.runs import checkpoint, random_batch
from vit_parity.gradients import compare_gradients, cotangent, gradients_of, torch_gradients
from vit_parity.replay import ReplayedModel, float64_params, replay
from vit_parity.training import compare_training
from vit_spec import VitportError, parameters

CONFIG = COMBINATIONS["plain"]
WEIGHTS, IMAGES = checkpoint(CONFIG), random_batch(CONFIG)
SHALLOW = checkpoint(CONFIG.replace(depth=1))


def loss(params: dict[str, np.ndarray], images: np.ndarray) -> float:
    """By the numpy replay."""
    answer = replay(ReplayedModel(CONFIG, params, images), {})["logits"]
    return float((answer * cotangent(answer.shape)).sum())


def test_gradients_are_difference_quotients():
    """Oracle: (f(x + h) - f(x - h)) / 2h of the numpy replay along a random direction, in float64: 1e-9 measured."""
    model = vit_torch.create_model(weights=WEIGHTS, dtype=torch.float64).eval()
    found = torch_gradients(model, IMAGES.astype(np.float64))
    params, rng, h = dict(float64_params(WEIGHTS.params)), np.random.default_rng(3), 1e-5
    for name in ("images", "pos_embed", "blocks.0.attn.qkv.weight", "blocks.1.mlp.fc1.bias", "head.weight"):
        start = IMAGES.astype(np.float64) if name == "images" else params[name]
        step = h * rng.standard_normal(start.shape)
        if name == "images":
            change = loss(params, start + step) - loss(params, start - step)
        else:
            change = loss(params | {name: start + step}, IMAGES) - loss(params | {name: start - step}, IMAGES)
        assert change / 2 == pytest.approx(float((found[name] * step).sum()), rel=1e-6), name


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_both_frameworks_give_the_same_gradients_from_the_head_to_the_image(dtype, tolerance):
    """Measured 1e-15 and 6e-7, relative to each gradient's own norm."""
    both = [gradients_of(framework, WEIGHTS, IMAGES, dtype) for framework in ("torch", "jax")]
    truth = gradients_of("torch", WEIGHTS, IMAGES, "float64")
    rows = compare_gradients(*both, truth, CONFIG)
    found = {row.name: row.difference for row in rows}
    for row in rows:
        assert max(row.error_a, row.error_b) < 10 * tolerance
        assert (row.error_a > 0) == (dtype == "float32")
    assert set(found) == {parameter.name for parameter in parameters(CONFIG)} | {"images"}
    order = list(found)
    assert order[-1] == "images"
    assert order[0].partition(".")[0] in ("norm", "head")
    blocks = [int(name.split(".")[1]) for name in order if name.startswith("blocks.")]
    assert blocks == sorted(blocks, reverse=True)
    keys = {name for name in found if name.endswith("attn.qkv.bias")}  # that of the keys is zero in exact arithmetic
    assert max(entry.relative for name, entry in found.items() if name not in keys) < tolerance
    assert max(found[name].relative for name in keys) < 10 * tolerance


@pytest.fixture(scope="module")
def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    shape = (4, *CONFIG.image_size, CONFIG.in_channels)
    return [(rng.standard_normal(shape), rng.integers(CONFIG.num_classes, size=4)) for _ in range(2)] * 10


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_twenty_steps_in_float64_stay_together(batches, optimizer):
    """Goal 1e-10; measured 1.1e-12 (AdamW) and 8e-17 (SGD). The loss moves, so the models do train."""
    steps = compare_training(SHALLOW, batches, optimizer, "float64")
    assert len(steps) == 20
    for step in steps:
        assert step.distance <= 1e-10
        assert step.loss_jax == pytest.approx(step.loss_torch, rel=1e-10)
    assert steps[18].loss_torch < steps[0].loss_torch - 0.01


@pytest.mark.slow
def test_float32_drifts_by_rounding(batches):
    """Measured 4e-4 after 20 steps, nearly all of it in the biases of the keys: they change no output, so that their
    gradient is rounding alone, and Adam divides it by its own size."""
    steps = compare_training(SHALLOW, batches, "adamw", "float32")
    assert 1e-9 < steps[-1].distance < 1e-2


@pytest.mark.slow
def test_another_rule_in_one_framework_shows(batches, monkeypatch):
    """A weight decay that one of the two has twice: the same comparison tells them apart at the first step."""
    import optax

    adamw = optax.adamw

    def doubled(rate, b1, b2, eps, weight_decay):
        return adamw(rate, b1, b2, eps, weight_decay=2 * weight_decay)

    monkeypatch.setattr(optax, "adamw", doubled)
    steps = compare_training(SHALLOW, batches[:2], "adamw", "float64")
    assert 1e-6 < steps[0].distance < steps[1].distance
    assert vit_parity.training.WEIGHT_DECAY == 0.05


def test_a_model_without_classes_is_refused(batches):
    config = CONFIG.replace(num_classes=0)
    with pytest.raises(VitportError, match="num_classes=0"):
        compare_training(Checkpoint.of(config, random_params(config, 1)), batches)
