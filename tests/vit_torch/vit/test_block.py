from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import numpy_reference
from tests.small_configs import BASE, CONFIGS
from tests.vit_torch.models import randomize
from vit_torch import Block
from vit_torch.vit.vision_transformer import BLOCKS


@pytest.mark.parametrize("kind", ["sequential", "original"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_block_is_torchs_encoder_layer(activation: str, kind: str):
    """Oracle: ``torch.nn.TransformerEncoderLayer``, float64; epsilon as torch has it, 1e-5."""
    config = BASE.replace(norm_eps=1e-5, activation=activation, block=kind)
    block = BLOCKS[kind](config)
    params = randomize(block, "blocks.0")
    oracle = torch.nn.TransformerEncoderLayer(
        config.embed_dim, config.num_heads, config.hidden_dim, 0.0, activation, batch_first=True,
        norm_first=kind == "sequential",
    ).double()  # fmt: skip
    modules = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1."}
    modules |= {"linear2.": "mlp.fc2.", "norm1.": "norm1.", "norm2.": "norm2."}
    oracle.load_state_dict(
        {
            theirs + leaf: torch.tensor(params[f"blocks.0.{ours}{leaf}"])
            for theirs, ours in modules.items()
            for leaf in ("weight", "bias")
        }
    )
    x = torch.randn(2, 6, config.embed_dim, dtype=torch.float64)
    torch.testing.assert_close(block(x), oracle(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["plain", "swiglu", "swiglu-packed", "layer-scale", "qk-norm", "attn-norm", "post-norm", "original"]
)
def test_block_is_the_published_formula(name: str):
    """Oracle: numpy float64."""
    config = CONFIGS[name]
    block = BLOCKS[config.block](config)
    params = randomize(block, "blocks.0")
    x = np.random.default_rng(1).standard_normal((2, 5, config.embed_dim))
    expected = np.stack([numpy_reference.block(config, params, "blocks.0", tokens) for tokens in x])
    np.testing.assert_allclose(block(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_both_branches_are_left_out_by_stochastic_depth():
    """Oracle: at rate 0.5, a quarter of the samples pass unchanged; 400 samples, 4 standard errors are 0.087."""
    torch.manual_seed(0)
    block = Block(BASE, drop_path=0.5)
    x = torch.randn(1, 3, BASE.embed_dim).expand(400, -1, -1)
    unchanged = (block(x) == x).flatten(1).all(1).double().mean()
    assert abs(unchanged - 0.25) < 0.087
    assert len(block(x).detach().unique(dim=0)) == 4


def test_rates_reach_their_modules():
    block = Block(BASE.replace(drop_rate=0.1, attn_drop_rate=0.2), drop_path=0.3)
    rates = {name: module.p for name, module in block.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {"attn.attn_drop": 0.2, "attn.proj_drop": 0.1, "mlp.drop1": 0.1, "mlp.drop2": 0.1}
    assert block.drop_path1.rate == block.drop_path2.rate == 0.3
