"""Every way of running a model is near the truth, and what a sweep says of repetition is so."""

from __future__ import annotations

import numpy as np
import pytest

from tests.numpy_reference import forward
from tests.random_weights import random_images, random_params
from tests.small_configs import COMBINATIONS
from tests.vit_parity.runs import checkpoint, random_batch
from vit_parity.sweep import Case, all_cases, one_at_a_time, sweep

CONFIG = COMBINATIONS["scaled"].replace(depth=1)
WEIGHTS, IMAGES = checkpoint(CONFIG), random_batch(CONFIG, batch=3)
LIMITS = {"float32": 2e-6, "bfloat16": 3e-2, "float16": 4e-3}
"""Some 16 unit roundoffs; measured below 4e-7, 1.2e-2, 1.3e-3."""


@pytest.mark.slow
def test_each_setting_by_itself_stays_within_its_dtype_s_rounding():
    """Oracle: float64. The CPU repeats itself bit for bit in all."""
    cases = [*one_at_a_time(["float32"]), Case("torch", "bfloat16"), Case("jax", "bfloat16"), Case("torch", "float16")]
    results = sweep(WEIGHTS, IMAGES, cases)
    assert [result.case for result in results] == cases
    for result in results:
        limit = LIMITS[result.case.dtype]
        assert 0 < result.error < limit, result
        assert result.repeats
        assert max(result.alone, result.moved) < limit


def test_the_truth_is_that_of_the_numpy_reference():
    """A case in float64 has no error to speak of, and the reference in numpy agrees."""
    (result,) = sweep(WEIGHTS, IMAGES, [Case("torch", "float64")])
    assert result.error == 0
    expected = forward(CONFIG, random_params(CONFIG, 1, np.float32), random_images(CONFIG, 3, 2))
    assert np.abs(expected).max() > 0.3


def test_the_fused_attention_is_what_runs(monkeypatch):
    """A fault in torch's own kernel shows in the fused case alone."""
    import torch

    right = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *parts, **options: 1.1 * right(*parts, **options)
    )
    trained = checkpoint(CONFIG.replace(attn_drop_rate=0.1))  # with dropout of weights, which is off here
    for weights in (WEIGHTS, trained):
        plain, fused = sweep(weights, IMAGES, [Case("torch"), Case("torch", attention="fused")])
        assert plain.error < 1e-6 < 1e-3 < fused.error


def test_a_case_that_the_framework_refuses_is_told(monkeypatch):
    """As JAX refuses fused attention in float16 on a CPU: no number, and its own words."""
    import torch

    def refuse(*_, **__):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refuse)
    (result,) = sweep(WEIGHTS, IMAGES, [Case("torch", attention="fused")])
    assert result.refused == "no such kernel"
    assert np.isnan(result.error)
    assert not result.repeats


def test_settings_of_torch_are_put_back():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        before = torch.get_num_threads(), torch.get_float32_matmul_precision()
        sweep(WEIGHTS, IMAGES, [Case("torch", threads=1, precision="medium")])
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
    finally:
        torch.set_num_threads(threads)


def test_all_cases_are_the_whole_product():
    """3 dtypes, 3 precisions, 2 attentions, and threads or jit: 36 in each framework, none twice."""
    cases = list(all_cases())
    assert len(cases) == len(set(cases)) == 72
    assert set(one_at_a_time()) <= set(cases)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_result_tells_everything_as_json(framework):
    (result,) = sweep(WEIGHTS, IMAGES, [Case(framework)])
    assert result.to_dict()["framework"] == framework
    assert set(result.to_dict()) >= {"dtype", "precision", "attention", "jit", "threads", "error", "repeats", "moved"}
