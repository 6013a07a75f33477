"""``vitport steps`` trains both frameworks from the same weights, and fails where they drift apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import conversion
import vit_torch
from tests.vit_cli.conftest import tiny_checkpoint
from vit_parity.training import random_batches


def test_both_optimizers_stay_together_in_float64(weights, vitport, tmp_path):
    """The goal is 1e-10; the chart is drawn too. Oracle of the first loss: torch's cross-entropy of the first batch."""
    chart = tmp_path / "drift.svg"
    args = ("--dtypes", "float64", "--count", "2", "--batch", "2", "--fail-above", "1e-10", "--figure", chart, "--json")
    result = vitport("steps", weights, *args)
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert (told["schema"], told["batch"], told["seed"]) == (1, 2, 0)
    assert [(run["optimizer"], run["dtype"]) for run in told["runs"]] == [("adamw", "float64"), ("sgd", "float64")]
    checkpoint = conversion.load(weights)
    ((images, labels),) = random_batches(checkpoint.config, 1, 2)
    model = vit_torch.create_model(weights=checkpoint, dtype=torch.float64).eval()
    logits = model(torch.tensor(images).permute(0, 3, 1, 2))
    expected = float(torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).detach())
    for run in told["runs"]:
        assert len(run["steps"]) == 2
        assert 0 < max(step["distance"] for step in run["steps"]) <= 1e-10
        assert run["steps"][0]["loss_torch"] == pytest.approx(expected, rel=1e-12)
    assert "adamw, float64" in chart.read_text(encoding="utf-8")


def test_above_the_limit_it_exits_with_the_first_step(weights, vitport):
    """For continuous integration: float32 is not within 1e-10."""
    result = vitport(
        "steps", weights, "--optimizers", "sgd", "--dtypes", "float32", "--count", "2", "--fail-above", 1e-10
    )
    assert result.code == 1
    assert result.err.startswith("vitport: sgd in float32 differs by ")
    assert result.err.endswith("which is above 1e-10, after step 1.\n")
    assert "loss in PyTorch" in result.out


def test_two_batches_are_taken_in_turn():
    """The same for one seed, and others for another."""
    config = tiny_checkpoint().config
    batches = random_batches(config, 3, 5, seed=1)
    assert batches[0][0].shape == (5, 12, 20, 3)
    assert set(batches[0][1]) <= set(range(7))
    np.testing.assert_array_equal(batches[0][0], batches[2][0])
    assert np.abs(batches[0][0] - batches[1][0]).max() > 1
    assert np.abs(batches[0][0] - random_batches(config, 1, 5, seed=2)[0][0]).max() > 1


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--count", "0"), "must be at least 1"),
        (("--optimizers",), "must name at least one"),
        (("--figure", "a.gif"), "end in .png or .svg"),
    ],
)
def test_mistakes_are_told_in_one_sentence(weights, vitport, args, sentence):
    result = vitport("steps", weights, *args)
    assert result.code == 2
    assert sentence in result.err
    assert result.err.count("\n") == 1
