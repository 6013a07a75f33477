"""A model a stage at a time computes what it computes as a whole, and a comparison says the same of it."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from conversion import Checkpoint
from tests.random_weights import random_params
from tests.small_configs import COMBINATIONS, SWIN_CONFIGS
from tests.vit_parity.runs import random_batch, replayed_model
from vit_parity import capture_jax, capture_torch
from vit_parity.capture import Capture
from vit_parity.comparing import Comparing
from vit_parity.comparison import Comparison, Row, compare_captures
from vit_parity.explain import Explaining, explain
from vit_parity.flow import Flow, captured, flow
from vit_parity.frameworks import jax_model, torch_model
from vit_parity.measure import relative
from vit_parity.points import stage_of, stages
from vit_parity.truth import true_flow, truth_of

MODELS = {"scaled": COMBINATIONS["scaled"], "swin": next(iter(SWIN_CONFIGS.values()))}
CONFIG = COMBINATIONS["plain"]
WEIGHTS = Checkpoint.of(CONFIG, random_params(CONFIG, 1, np.float32))
IMAGES = random_batch(CONFIG)


@pytest.mark.parametrize("name", MODELS)
def test_stages_are_those_of_the_whole_model(name):
    """PyTorch bit for bit; JAX compiles other functions, which round otherwise: 1e-7 measured."""
    config = MODELS[name]
    weights = Checkpoint.of(config, random_params(config, 1, np.float32))
    images = random_batch(config)
    whole = {"torch": capture_torch(torch_model(weights), images), "jax": capture_jax(jax_model(weights), images)}
    for framework, expected in whole.items():
        run = flow("torch" if framework == "torch" else "jax", weights, images)
        ran = list(run.stages())
        assert [stage for stage, _ in ran] == list(stages(config))
        found = {name: array for _, activations in ran for name, array in activations.items()}
        assert list(found) == list(expected.activations)
        assert (run.dtype, run.facts) == (expected.dtype, expected.facts)
        for at, array in expected.activations.items():
            assert found[at].dtype == array.dtype
            if framework == "torch":
                np.testing.assert_array_equal(found[at], array)
            assert found[at].shape == array.shape
            assert relative(found[at], array.astype(np.float64)) < 1e-6


def faulty() -> Flow:
    return flow("torch", replace(WEIGHTS, config=CONFIG.replace(activation="gelu_tanh")), IMAGES, title="B")


def numbers(row: Row) -> list[float]:
    told = asdict(row)
    return [*told["difference"].values(), *told["ulps"].values(), row.beyond, row.tolerance, row.error_a or 0,
            row.error_b or 0, row.bound_a, row.bound_b]  # fmt: skip


def streamed(a: Flow, b: Flow, memory: float) -> tuple[Comparison, tuple[object, ...]]:
    model = replayed_model(WEIGHTS, IMAGES)
    comparing = Comparing(a, b, true_flow(WEIGHTS, IMAGES), model, memory=memory)
    explaining = Explaining(b.title, b.dtype, model)
    comparing.run(lambda stage: explaining.add(stage.name, stage.b))
    return comparing.comparison(), explaining.found


@pytest.mark.parametrize("memory", [1e9, 1.0])
def test_a_comparison_by_stages_is_that_of_whole_captures(memory):
    """Every row, verdict and cause, whether arrays lie in memory or in a file."""
    a, b, model = flow("torch", WEIGHTS, IMAGES, title="A"), faulty(), replayed_model(WEIGHTS, IMAGES)
    whole = compare_captures(a.capture(), b.capture(), truth=truth_of(WEIGHTS, IMAGES), model=model)
    found, causes = streamed(a, b, memory)
    assert [(row.name, row.shape, row.verdict) for row in found.rows] == [
        (row.name, row.shape, row.verdict) for row in whole.rows
    ]
    for row, expected in zip(found.rows, whole.rows, strict=True):
        np.testing.assert_allclose(numbers(row), numbers(expected), rtol=1e-12, atol=1e-18)
        assert row.histogram == expected.histogram
    assert causes == explain(b.capture(), model)
    assert causes
    assert list(found.a.activations) == ["logits"], "no more than the output is kept"


def test_a_capture_may_lack_stages_and_lie_in_any_order():
    """As a graph gives them, or a file sorted by name."""
    whole = flow("torch", WEIGHTS, IMAGES, title="A").capture()
    few = dict(sorted((name, array) for name, array in whole.activations.items() if stage_of(name) != "blocks.0"))
    found, _ = streamed(flow("torch", WEIGHTS, IMAGES), captured(Capture("B", few, IMAGES)), 1e9)
    assert {row.name for row in found.rows} == set(few)
    assert set(found.only_a) == whole.activations.keys() - few.keys()
