"""Who is to blame for a difference, told on differences that were put there on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import vit_jax
import vit_torch
from conversion import Checkpoint
from tests.small_configs import COMBINATIONS
from tests.vit_parity.runs import checkpoint, random_batch, replayed_model, run_jax, run_torch
from vit_parity import Capture
from vit_parity.comparison import compare_captures
from vit_parity.local_errors import local_errors_jax, local_errors_torch
from vit_parity.truth import truth_of
from vit_spec import VitportError

CONFIG = COMBINATIONS["plain"]
WEIGHTS, IMAGES = checkpoint(CONFIG), random_batch(CONFIG)


@pytest.fixture(scope="module")
def truth() -> Capture:
    return truth_of(WEIGHTS, IMAGES)


@pytest.fixture(scope="module")
def runs() -> tuple[Capture, Capture]:
    return run_torch(WEIGHTS, IMAGES), run_jax(WEIGHTS, IMAGES)


def faulty(name: str, change) -> Checkpoint:
    return Checkpoint.of(CONFIG, dict(WEIGHTS.params) | {name: change(WEIGHTS.params[name])})


def test_the_truth_is_float64_between_both_frameworks(truth):
    """Oracle: PyTorch alone in float64."""
    alone = run_torch(WEIGHTS, IMAGES, "float64").activations
    for name, array in truth.activations.items():
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, alone[name], rtol=0, atol=1e-13)


def test_where_the_frameworks_disagree_in_float64_there_is_no_truth():
    """NaN in the images is in both, and equals nothing."""
    images = IMAGES.copy()
    images[0, 0, 0, 0] = np.nan
    with pytest.raises(VitportError, match=r"patch_embed\.proj"):
        truth_of(WEIGHTS, images)


def test_a_clean_pair_differs_by_rounding_alone(truth, runs):
    """Every activation of both, with the truth and without."""
    for options in ({"truth": truth, "model": replayed_model(WEIGHTS, IMAGES)}, {}):
        found = compare_captures(*runs, **options)
        assert {row.verdict for row in found.rows} == {"rounding"}
        assert found.first_divergence is None
        assert [row.name for row in found.rows] == list(runs[0].activations)
        assert max(row.beyond for row in found.rows) == 0


@pytest.mark.parametrize("side", ["a", "b"])
def test_the_run_that_is_further_from_the_truth_is_blamed(truth, runs, side):
    """fc1's bias of block 1 is moved in one of the two, by 1e-3; before that nothing is blamed."""
    fault = run_torch(faulty("blocks.1.mlp.fc1.bias", lambda bias: bias + 1e-3), IMAGES)
    pair = (fault, runs[1]) if side == "a" else (runs[1], fault)
    found = compare_captures(*pair, truth=truth, model=replayed_model(WEIGHTS, IMAGES))
    first = found.first_divergence
    assert first is not None
    assert (first.name, first.verdict) == ("blocks.1.mlp.fc1", side)
    errors = (first.error_a, first.error_b) if side == "a" else (first.error_b, first.error_a)
    assert errors[0] is not None and errors[1] is not None
    assert errors[0] > 1e-4 > 1e-6 > errors[1]
    assert {row.verdict for row in found.rows} == {side, "rounding"}


def test_where_both_are_equally_wrong_both_are_blamed(truth):
    """The same fault in both: no difference, and yet both are off."""
    fault = run_torch(faulty("blocks.0.mlp.fc1.bias", lambda bias: bias + 1e-3), IMAGES)
    found = compare_captures(fault, fault, truth=truth, model=replayed_model(WEIGHTS, IMAGES))
    assert found.first_divergence is not None
    assert (found.first_divergence.name, found.first_divergence.verdict) == ("blocks.0.mlp.fc1", "both")
    assert found.first_divergence.difference.max_abs == 0


def test_without_a_truth_the_first_divergence_is_found_and_nobody_is_blamed(runs):
    fault = run_torch(faulty("blocks.1.norm2.weight", lambda weight: weight * 1.01), IMAGES)
    first = compare_captures(fault, runs[1]).first_divergence
    assert first is not None
    assert (first.name, first.verdict, first.error_a) == ("blocks.1.norm2", "apart", None)


def test_measures_of_a_row_are_those_worked_out_by_hand(runs):
    """One logit of B is 1 off: the share beyond is one of 14, and the others are 0 ulps apart."""
    a = runs[0]
    logits = a.activations["logits"].copy()
    logits[0, 3] += 1
    b = replace(a, title="b", activations=a.activations | {"logits": logits})
    row = compare_captures(a, b).rows[-1]
    assert row.difference.max_abs == pytest.approx(1)
    assert row.beyond == pytest.approx(1 / 14)
    assert row.ulps.median == 0 < row.ulps.max
    assert compare_captures(a, b).first_above(1e-3) == row
    assert compare_captures(a, b).first_above(10) is None


def test_nan_is_a_divergence(runs):
    a = runs[0]
    broken = a.activations["blocks.0.mlp.fc2"].copy()
    broken[0, 0, 0] = np.nan
    b = replace(a, activations=a.activations | {"blocks.0.mlp.fc2": broken})
    found = compare_captures(a, b)
    assert found.first_divergence is not None
    assert found.first_divergence.name == "blocks.0.mlp.fc2"
    assert found.first_above(1e9) == found.first_divergence


def test_runs_that_cannot_be_compared_are_refused(runs):
    a, b = runs
    with pytest.raises(VitportError, match="different images"):
        compare_captures(a, replace(b, images=b.images + 1))
    with pytest.raises(VitportError, match="in common"):
        compare_captures(a, replace(b, activations={"x": np.ones(1)}))
    with pytest.raises(VitportError, match="not runs of one model"):
        compare_captures(a, replace(b, activations={"logits": np.ones((2, 8))}))


def test_activations_of_one_alone_are_named(runs):
    a, b = runs
    found = compare_captures(replace(a, activations=a.activations | {"extra": np.ones(1)}), b)
    assert (found.only_a, found.only_b) == (("extra",), ())


def test_teacher_forcing_shows_only_the_block_with_the_fault(truth):
    """Without it every later block is off too. Clean blocks: 2e-7 measured."""
    weights = faulty("blocks.0.attn.proj.weight", lambda weight: weight * 1.01)
    torch_model = vit_torch.create_model(weights=weights).eval()
    jax_model = vit_jax.create_model(weights=weights)
    jax_model.eval()
    for found in (local_errors_torch(torch_model, truth), local_errors_jax(jax_model, truth)):
        assert list(found) == ["blocks.0", "blocks.1"]
        assert found["blocks.0"] > 1e-3 > 1e-6 > found["blocks.1"] > 0
