"""The sides themselves, at a small size, in one process. Oracle: each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import sides_jax, sides_torch
from benchmarks.cases.compilation import comparisons, second_of
from benchmarks.cases.inference import TOLERANCE, best_product, linear_layers, rate
from benchmarks.cases.memory import less, saved
from benchmarks.cases.swin import TOLERANCE as SWIN_TOLERANCE
from benchmarks.cases.training import TOLERANCE as LOSS_TOLERANCE
from benchmarks.measure import Measured
from benchmarks.process import Sample
from benchmarks.side import UnavailableError
from benchmarks.subject import Subject, product_shapes
from vit_spec import forward_flops, get_model

SUBJECT = {"model": "vit_tiny_patch16_224", "changes": {"depth": 1, "image_size": 32, "num_classes": 7}}
SWIN = {
    "model": "swinv2_tiny_window8_256",
    "changes": {"depths": (1, 2), "num_heads": (3, 6), "window_sizes": 2, "image_size": 32, "num_classes": 7},
}


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("library", "subject", "tolerance"),
    [("vit_torch", SUBJECT, TOLERANCE), ("transformers", SUBJECT, TOLERANCE), ("transformers", SWIN, SWIN_TOLERANCE)],
)
def test_logits_are_the_same_on_every_side(library, subject, tolerance) -> None:
    """Measured 6.7e-7; the tolerance, 30 times as much, is that of the benchmark, for twelve blocks."""
    ours = sides_jax.inference(subject, [2, 3])
    other = sides_torch.inference(subject, [2, 3], library)
    assert distance(ours.answers()["logits"], other.answers()["logits"]) < tolerance
    assert ours.answers()["logits"].shape == (2, 7)
    for side in (ours, other):
        assert set(side.parts) == {"2", "3"}
        side.parts["3"](2)


@pytest.mark.parametrize(
    ("library", "subject"), [("vit_torch", SUBJECT), pytest.param("transformers", SWIN, marks=pytest.mark.slow)]
)
def test_losses_are_the_same_on_every_side_and_fall(library, subject) -> None:
    """Measured 1.1e-6 over three steps of AdamW, which take the loss from 2.5 to 0.1."""
    ours = sides_jax.train(subject, 4, remat="full", scan=True, analyse=True)
    other = sides_torch.train(subject, 4, library)
    losses = ours.answers()["losses"]
    assert losses.shape == (3,)
    assert distance(losses, other.answers()["losses"]) < LOSS_TOLERANCE
    assert losses[2] < 0.9 * losses[0]
    assert ours.facts["temporary"] > 0


def test_without_a_compiler_torch_compile_is_left_out(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match=r"torch\.compile needs a C\+\+ compiler"):
        sides_torch.inference(SUBJECT, [1], "vit_torch", compiled=True)


def test_the_products_are_the_model_but_for_attention_patches_and_head() -> None:
    """ViT-Ti/16. Oracle: ``forward_flops``, which another test compares with torch's counter, less everything but the
    linear layers of blocks."""
    config = get_model("vit_tiny_patch16_224").config
    layers = 2 * config.depth * sum(M * K * N for M, K, N in product_shapes(config, 2).values())
    N, D = config.num_tokens, config.embed_dim
    others = 2 * (config.depth * 2 * N * N * D + 196 * D * 3 * 16**2 + D * 1000)
    assert layers + 2 * others == 2 * forward_flops(config)


def test_the_best_product_is_that_of_the_largest_median() -> None:
    samples = [Sample(0.1), Sample(0.2), Sample(0.25)]
    assert rate("x", samples, 1e9).values == pytest.approx((10, 5, 4))
    products = {"8 qkv": Measured("8 qkv", "GFLOP/s", (1, 9, 1)), "8 fc1": Measured("8 fc1", "GFLOP/s", (2, 2, 2))}
    assert best_product(products) == Measured("product of fc1", "GFLOP/s", (2, 2, 2))
    layers = linear_layers([[Sample(1.0), Sample(2.0)], [Sample(0.5), Sample(0.25)]], blocks=12)
    assert layers == Measured("bare products", "s", (18.0, 27.0))


def test_what_rematerialisation_saves_is_over_the_step_that_keeps_everything() -> None:
    found = {"scan": [Sample(2.0, 100.0)] * 3, "scan, remat": [Sample(2.5, 60.0)] * 3}
    ratios = {
        each.name: each.ratio.median for each in saved("scan", "scan, remat", found, {"scan": 8, "scan, remat": 4})
    }
    assert ratios == {"scan, temporaries": 0.5, "scan, time": 1.25, "scan, resident": 0.6}
    assert less(Measured("ours", "B", (900.0, 950.0)), 300.0).values == (600.0, 650.0)


def test_the_subject_is_the_same_at_every_call() -> None:
    what = Subject(**SUBJECT)
    first, again = what.checkpoint().params, what.checkpoint().params
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert what.images(2).shape == (2, 32, 32, 3)
    assert set(what.labels(50)) <= set(range(7))


def test_a_second_start_is_compared_with_and_without_the_step_that_it_cannot_shorten() -> None:
    times = {"scan": (4.0, 2.0), "unrolled": (8.0, 6.0), "torch.compile": (16.0, math.nan)}
    seconds = {"scan": (2.5, 0.5), "unrolled": (5.0, 3.0)}
    found = {name: [Sample(first, begun=begun)] * 2 for name, (first, begun) in times.items()}
    found |= {second_of(name): [Sample(first, begun=begun)] * 2 for name, (first, begun) in seconds.items()}
    ratios = {each.name: each.ratio.median for each in comparisons(found)}
    assert ratios == {
        "scan, unrolled": 0.5, "scan, unrolled, until the step runs": pytest.approx(1 / 3),
        "scan, torch.compile": 0.25, "unrolled, torch.compile": 0.5,
        "scan second start": 1.6, "scan second start, until the step runs": 4.0,
        "unrolled second start": 1.6, "unrolled second start, until the step runs": 2.0,
    }  # fmt: skip
