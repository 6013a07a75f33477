"""goldens.npz is what its script writes today: neither the models nor vit_torch have moved on without it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.jax_alone.golden_models import GOLDENS, MODELS
from tests.jax_alone.make_goldens import answer
from vit_spec import ViTConfig


@pytest.mark.parametrize("name", MODELS)
def test_goldens_are_what_vit_torch_answers(name) -> None:
    """The same operations on another machine: a few float64 roundings; measured 0 on the one that wrote them."""
    stored = np.load(GOLDENS, allow_pickle=False)
    again = "the goldens are out of date: run `python -m tests.jax_alone.make_goldens`"
    assert ViTConfig.from_json(str(stored[f"{name}/config"])) == MODELS[name], again
    for key, array in answer(MODELS[name]).items():
        tolerance = 1e-12 * np.abs(array).max()
        np.testing.assert_allclose(stored[f"{name}/{key}"], array, rtol=0, atol=tolerance, err_msg=again)


def test_goldens_are_small_and_of_these_models_alone() -> None:
    assert GOLDENS.stat().st_size < 300_000
    assert {key.partition("/")[0] for key in np.load(GOLDENS, allow_pickle=False)} == set(MODELS)
