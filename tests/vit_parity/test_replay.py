"""The numpy replay against PyTorch in float64, from nothing and from known activations."""

from __future__ import annotations

import numpy as np
import pytest

from tests.small_configs import COMBINATIONS, CONFIGS
from tests.vit_parity.runs import checkpoint, random_batch, replayed_model, run_torch
from vit_parity.points import stage_of
from vit_parity.replay import replay

ALL = CONFIGS | {f"combined-{name}": config for name, config in COMBINATIONS.items()}


@pytest.mark.parametrize("name", ALL)
def test_replay_is_what_the_model_computes_for_every_option(name):
    """Oracle: vit_torch in float64; 4e-14 measured on values of order 1. So too from its own activations."""
    weights, images = checkpoint(ALL[name]), random_batch(ALL[name])
    expected = run_torch(weights, images, "float64").activations
    for known in ({}, expected):
        found = replay(replayed_model(weights, images), known)
        assert list(found) == list(expected)
        for at, array in expected.items():
            np.testing.assert_allclose(found[at], array, rtol=0, atol=1e-12, err_msg=at)


def test_a_known_activation_is_what_the_next_is_computed_from():
    """Moving fc1's output moves act and nothing before; further on only act's known value counts."""
    config = COMBINATIONS["plain"]
    weights, images = checkpoint(config), random_batch(config)
    known = dict(run_torch(weights, images, "float64").activations)
    known["blocks.0.mlp.fc1"] = known["blocks.0.mlp.fc1"] + 0.5
    found = replay(replayed_model(weights, images), known)
    moved = [name for name in found if np.abs(found[name] - known[name]).max() > 1e-9]
    assert moved == ["blocks.0.mlp.fc1", "blocks.0.mlp.act"]


@pytest.mark.parametrize("name", ["plain", "parallel", "swiglu-map"])
@pytest.mark.parametrize("sparse", [False, True])
def test_one_stage_alone_is_that_part_of_the_whole(name, sparse):
    """Also where only tokens between blocks are known, and where nothing is."""
    config = COMBINATIONS[name]
    weights, images = checkpoint(config), random_batch(config)
    known = run_torch(weights, images, "float64").activations
    if sparse:
        known = {"blocks.0": known["blocks.0"]}
    whole = replay(replayed_model(weights, images), known)
    for stage in ("embed", *(f"blocks.{at}" for at in range(config.depth)), "head"):
        part = replay(replayed_model(weights, images), known, stage)
        assert list(part) == [at for at in whole if stage_of(at) == stage]
        for at, array in part.items():
            np.testing.assert_array_equal(array, whole[at])
