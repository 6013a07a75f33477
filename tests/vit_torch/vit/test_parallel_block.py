from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import numpy_reference
from tests.small_configs import BASE, CONFIGS
from tests.vit_torch.models import randomize
from vit_torch import ParallelBlock


@pytest.mark.parametrize("name", ["parallel", "parallel-no-qkv-bias", "parallel-no-proj-bias"])
def test_parallel_block_is_the_published_formula(name: str):
    """Oracle: numpy float64."""
    config = CONFIGS[name].replace(qk_scale=0.6)
    block = ParallelBlock(config)
    params = randomize(block, "blocks.0")
    x = np.random.default_rng(1).standard_normal((2, 5, config.embed_dim))
    expected = np.stack([numpy_reference.block(config, params, "blocks.0", tokens) for tokens in x])
    np.testing.assert_allclose(block(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_the_one_branch_is_left_out_by_stochastic_depth():
    """Oracle: at rate 0.5, half of the samples pass unchanged; 400 samples, 4 standard errors are 0.1."""
    torch.manual_seed(0)
    block = ParallelBlock(BASE.replace(block="parallel"), drop_path=0.5)
    x = torch.randn(1, 3, BASE.embed_dim).expand(400, -1, -1)
    result = block(x)
    assert abs((result == x).flatten(1).all(1).double().mean() - 0.5) < 0.1
    assert len(result.detach().unique(dim=0)) == 2


def test_rates_reach_their_modules():
    block = ParallelBlock(BASE.replace(block="parallel", drop_rate=0.1, attn_drop_rate=0.2), drop_path=0.3)
    assert (block.attn_drop.p, block.mlp_drop.p, block.drop_path.rate) == (0.2, 0.1, 0.3)
