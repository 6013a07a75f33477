from __future__ import annotations

import pytest
import torch

from vit_spec import VitportError
from vit_torch.layers.drop_path import DropPath, drop_path

SAMPLES, RATE = 20_000, 0.3


def test_drop_path_drops_whole_samples_and_scales_the_others():
    """Oracle: the definition; each sample is all zero, or all divided by 0.7."""
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(SAMPLES, 2, 3, dtype=torch.float64), RATE)
    first = dropped[:, :1, :1]
    assert torch.equal(dropped, first.expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, 1 / 0.7}


def test_drop_path_drops_at_its_rate():
    """Oracle: the binomial distribution; 4 standard errors are 4 * sqrt(0.3 * 0.7 / 20000) = 0.013."""
    torch.manual_seed(1)
    share = (drop_path(torch.ones(SAMPLES, 1), RATE) == 0).double().mean().item()
    assert abs(share - RATE) < 0.013


def test_drop_path_keeps_the_expectation():
    """4 standard errors of the mean of a kept-or-dropped one are 4 * sqrt(0.3 / 0.7 / 20000) = 0.0185."""
    torch.manual_seed(2)
    assert abs(drop_path(torch.ones(SAMPLES, 1), RATE).mean().item() - 1) < 0.0185


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_drop_path_is_the_identity_in_evaluation_and_at_rate_zero(rate: float, training: bool):
    x = torch.randn(50, 3)
    assert DropPath(rate).train(training)(x) is x


def test_drop_path_acts_in_training():
    torch.manual_seed(3)
    assert (DropPath(0.5)(torch.ones(50, 3)) == 0).any()


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rate_is_refused(rate: float):
    with pytest.raises(VitportError, match=rf"DropPath's rate must be in \[0, 1\); got {rate}\."):
        DropPath(rate)
