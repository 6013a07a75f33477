"""A checkpoint fitted to what the caller asks for. Oracle: the sentences that both frameworks give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import vit_jax
import vit_torch
from conversion import Checkpoint, prepare
from tests.random_weights import random_params
from tests.small_configs import CONFIGS
from vit_spec import VitportError

CONFIG = CONFIGS["distilled"]
PARAMS = random_params(CONFIG, seed=1, dtype=np.float32)


def _sentence(create: Callable[..., object], weights: Checkpoint, **options: int) -> str:
    with pytest.raises(VitportError) as caught:
        create(weights=weights, **options)
    return str(caught.value)


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}], ids=["own head", "new head"])
def test_both_frameworks_refuse_weights_in_memory_with_the_same_sentence(options: dict[str, int]) -> None:
    broken = {name: array for name, array in PARAMS.items() if name != "cls_token"}
    broken |= {"blocks.0.norm1.weight": np.ones(5), "blocks.0.norm1.wait": np.ones(24)}
    weights = Checkpoint.of(CONFIG, broken)
    sentences = {_sentence(create, weights, **options) for create in (vit_torch.create_model, vit_jax.create_model)}
    (sentence,) = sentences
    for part in ("missing cls_token", "(5,) instead of (24,)", "surplus blocks.0.norm1.wait"):
        assert part in sentence


def test_a_head_is_needed_unless_a_number_of_classes_is_asked_for() -> None:
    headless = Checkpoint.of(CONFIG, {name: array for name, array in PARAMS.items() if not name.startswith("head")})
    with pytest.raises(VitportError, match=r"missing head\.weight"):
        prepare(None, weights=headless)
    fitted = prepare(None, weights=headless, num_classes=3)
    assert fitted.config.num_classes == 3
    assert set(fitted.params) == set(headless.params)
    assert prepare(None, weights=fitted, num_classes=3).params.shapes == fitted.params.shapes


def test_half_a_head_is_refused_although_it_will_be_dropped() -> None:
    half = Checkpoint.of(CONFIG, {name: array for name, array in PARAMS.items() if name != "head_dist.bias"})
    with pytest.raises(VitportError, match=r"missing head_dist\.bias"):
        prepare(None, weights=half, num_classes=3)
