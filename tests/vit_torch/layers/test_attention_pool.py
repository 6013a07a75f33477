from __future__ import annotations

import numpy as np
import torch

from tests import numpy_reference
from tests.small_configs import CONFIGS
from tests.vit_torch.models import randomize
from vit_torch import AttentionPool, make_norm

CONFIG = CONFIGS["map"]


def test_pool_is_the_published_formula():
    """Oracle: numpy float64, head by head."""
    layer = AttentionPool(
        CONFIG.embed_dim, CONFIG.num_heads, CONFIG.hidden_dim, lambda width: make_norm(CONFIG, width), CONFIG.activation
    )
    params = randomize(layer, "attn_pool")
    x = np.random.default_rng(1).standard_normal((2, 5, CONFIG.embed_dim))
    expected = np.stack([numpy_reference.attention_pool(CONFIG, params, tokens) for tokens in x])
    np.testing.assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=1e-13)
