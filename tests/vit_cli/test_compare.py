"""``vitport compare`` tells the differences that there are."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

import vit_jax
import vit_parity.activations
import vit_torch
from conversion import load_picture
from tests.vit_cli.conftest import tiny_checkpoint


def differences(result) -> dict[str, dict[str, float]]:
    assert result.code == 0, result.err
    return json.loads(result.out)["differences"]


def test_frameworks_agree_on_the_same_weights(weights, vitport):
    """Float32 rounding on tokens of order 1; 1e-6 measured."""
    found = differences(vitport("compare", weights, "--json"))
    assert list(found) == ["features", "logits"]
    for entry in found.values():
        assert 0 < entry["max_abs"] < 1e-5
        assert entry["cosine"] == pytest.approx(1, abs=1e-9)


def test_measures_are_of_jax_against_torch(weights, picture, vitport):
    """Oracle: both models called directly on the picture, the differences taken here in numpy."""
    found = differences(vitport("compare", weights, "--image", picture, "--json"))
    pixels = load_picture(picture, tiny_checkpoint().preprocessing)[None]
    torch_model, jax_model = vit_torch.create_model(weights=weights).eval(), vit_jax.create_model(weights=weights)
    jax_model.eval()
    with torch.no_grad():
        expected = torch_model(torch.tensor(pixels).permute(0, 3, 1, 2)).double().numpy()
    actual = np.asarray(jax_model(pixels), np.float64)
    assert found["logits"]["max_abs"] == pytest.approx(np.abs(actual - expected).max(), abs=2e-6)


def test_a_difference_is_told(weights, vitport, monkeypatch):
    """JAX's logits are moved by 0.5 behind the command's back; the features stay."""
    run = vit_parity.activations.jax_activations

    def moved(*args):
        found = run(*args)
        return found | {"head": found["head"] + 0.5}

    monkeypatch.setattr(vit_parity.activations, "jax_activations", moved)
    found = differences(vitport("compare", weights, "--json"))
    assert found["logits"]["max_abs"] == pytest.approx(0.5, abs=1e-5)
    assert found["features"]["max_abs"] < 1e-5
    (row,) = [line for line in vitport("compare", weights).out.splitlines() if line.startswith("logits")]
    assert row.split()[1] == "5.0e-1"


def test_blocks_are_listed_in_order_when_asked(weights, vitport):
    """Embeddings, each block, the final norm, the head."""
    found = differences(vitport("compare", weights, "--blocks", "--json"))
    assert list(found) == ["embed", "blocks.0", "blocks.1", "features", "logits"]


def test_without_a_head_the_pooled_features_are_measured(headless, vitport):
    """The row says what it is."""
    assert list(differences(vitport("compare", headless, "--json"))) == ["features", "pooled features"]


@pytest.fixture
def seen(monkeypatch) -> list[np.ndarray]:
    """The pictures that reach the models, which are replaced by ones that answer at once."""
    pictures = []
    answer = {"norm": np.ones(1), "head": np.ones(1)}
    monkeypatch.setattr(
        vit_parity.activations, "torch_activations", lambda _, images: pictures.append(images) or answer
    )
    monkeypatch.setattr(vit_parity.activations, "jax_activations", lambda *_: answer)
    return pictures


def test_seed_decides_the_input(weights, vitport, seen):
    """The same numbers for one seed, others for another, of standard deviation 1."""
    for seed in (0, 0, 1):
        differences(vitport("compare", weights, "--json", "--seed", seed))
    assert seen[0].shape == (1, 12, 20, 3)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert np.abs(seen[0] - seen[2]).max() > 1
    assert seen[0].std() == pytest.approx(1, abs=0.1)


def test_a_picture_is_the_input_where_one_is_given(weights, picture, vitport, seen):
    """Preprocessed as the weights' record says."""
    differences(vitport("compare", weights, "--json", "--image", picture))
    np.testing.assert_array_equal(seen[0], load_picture(picture, tiny_checkpoint().preprocessing)[None])


def test_another_picture_size_can_be_asked_for(weights, vitport):
    """The position table is resized for both frameworks alike."""
    found = differences(vitport("compare", weights, "--json", "--image-size", 16, 8))
    assert found["features"]["max_abs"] < 1e-5


def test_without_torch_the_way_to_it_is_told(weights, vitport, monkeypatch):
    """The import fails as it does where PyTorch is not installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    result = vitport("compare", weights)
    assert result.code == 2
    assert "pip install 'vitport[torch]'" in result.err
