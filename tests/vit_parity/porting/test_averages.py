"""Moving averages of PyTorch against those of optax: equal rules are found equal, and what differs is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

import vitport
from vit_parity.porting import compare_ema
from vit_spec import VitportError

RNG = np.random.default_rng(1)
WEIGHTS = {"fc": {"kernel": RNG.standard_normal((6, 5)), "bias": RNG.standard_normal(5)}}


def constant(decay: float) -> Callable[..., Any]:
    return lambda average, p, number: optax.incremental_update(p, average, 1 - decay)


def warmed(average: Any, p: Any, number: int) -> Any:
    decay = jnp.minimum(0.4, (1 + number) / (10 + number))
    return decay * average + (1 - decay) * p


def late() -> Callable[..., Any]:
    before: dict[Any, Any] = {}

    def average(average: Any, p: Any, number: int) -> Any:
        last = before.get(p.shape, average if number == 0 else p)
        before[p.shape] = p
        return 0.9 * average + 0.1 * last

    return average


def averaged(model: Any) -> Any:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))


def mean(model: Any) -> Any:
    return AveragedModel(model)


def test_equal_rules_are_equal() -> None:
    for a, b in ((get_ema_avg_fn(0.9), constant(0.9)), (optax.ema(0.9), optax.ema(0.9))):
        found = compare_ema(a, b, WEIGHTS)
        assert found.equal, str(found)
        assert found.steps[-1].distance < 1e-12


@pytest.mark.parametrize(
    ("a", "b", "cause"),
    [
        (get_ema_avg_fn(0.9), constant(0.99), "averages with decay 0.99, and A averages with decay 0.9"),
        (get_ema_avg_fn(0.9), optax.ema(0.9), "averages with decay 0.9, corrected for its start at 0, and A "
         "averages with decay 0.9"),
        (get_ema_avg_fn(0.9), optax.ema(0.9, debias=False), "averages with decay 0.9, from 0, without a correction, "
         "and A averages with decay 0.9"),
        (get_ema_avg_fn(0.4), warmed, "warms its decay up by (1 + t) / (10 + t), up to 0.4, and A averages with "
         "decay 0.4"),
        (averaged, constant(0.9), "averages with decay 0.9, and A copies the parameters in the first step, and "
         "averages with decay 0.9"),
        (constant(0.9), mean, "takes the plain mean of all steps (SWA), and A averages with decay 0.9"),
        (get_ema_avg_fn(0.9), late(), "averages with decay 0.9, of the parameters before each step, and A averages "
         "with decay 0.9"),
    ],
    ids=["decay", "debias", "from zero", "warm-up", "copy", "mean", "late"],
)  # fmt: skip
def test_what_differs_is_named(a, b, cause) -> None:
    found = compare_ema(a, b, WEIGHTS, steps=10)
    assert not found.equal
    assert found.causes == (cause,)
    assert found.conclusion.endswith(f"B {cause}.")


def test_what_is_no_average_is_refused() -> None:
    with pytest.raises(VitportError, match="The average B is a int: give an optax transformation"):
        vitport.compare_ema(constant(0.9), 3, WEIGHTS)
    with pytest.raises(VitportError, match="returns a dict: it must return what has a module"):
        compare_ema(lambda model: {}, constant(0.9), WEIGHTS)
    with pytest.raises(VitportError, match="needs weights"):
        compare_ema(constant(0.9), constant(0.9), {})
    with pytest.raises(VitportError, match=r"The average A fails \(ZeroDivisionError"):
        compare_ema(lambda average, p, number: 1 / 0, constant(0.9), WEIGHTS)
